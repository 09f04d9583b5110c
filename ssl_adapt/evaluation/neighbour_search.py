"""The nearest features of a bank, with faiss: in one process, over the shards of many, or among the lists of an IVF."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import faiss
import torch
from torch import Tensor

from ssl_adapt.processes import gather_rows, process_count, process_index, row_counts

QUERIES_PER_SEARCH = 512  # over all processes; bounds the tables of candidates and of votes
FAISS_GPU_MAX_K = 2048  # the selection kernels of faiss stop here, for probes too; what is larger runs on the CPU
RECALL_QUERIES = 1000
TRAINING_ROWS_PER_LIST = 64  # at most; faiss would take 256, at four times the cost, and warns below 39
MISSING = -1


class Neighbours(NamedTuple):
    """Of M queries the k nearest rows of a bank, nearest first.

    Attributes:
        cosines: float32 (M, k).
        classes: int64 (M, k), the classes of these rows; `MISSING` where an IVF search found fewer than k.
    """

    cosines: Tensor
    classes: Tensor


def create_index(bank: Tensor, k: int, probes: int | None) -> faiss.Index:
    """An inner-product index of the bank (N, D): exact, or an IVF of which each search probes that many lists.

    It is on a GPU when faiss sees one (not run on a GPU). The lists, about 4 * sqrt(N), come from a k-means of the
    bank that begins with a fixed seed, so that the same bank gives the same lists.

    Source: the number of lists and of rows to train on: faiss, "Guidelines to choose an index".
    """
    index: faiss.Index = faiss.IndexFlatIP(bank.shape[1])
    if probes is not None:
        lists = min(round(4 * len(bank) ** 0.5), len(bank))
        index = faiss.IndexIVFFlat(index, bank.shape[1], lists, faiss.METRIC_INNER_PRODUCT)
    if faiss.get_num_gpus() > 0 and max(k, probes or 0) <= FAISS_GPU_MAX_K:
        # Features reach faiss as CPU arrays: torch has finished writing them, so there are no streams to
        # synchronise, whose neglect gives silently wrong neighbours.
        device = torch.cuda.current_device() if torch.cuda.is_available() else 0
        index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), device, index)
    if probes is not None:
        ivf: Any = index  # configured last: on a GPU it is another index than before
        ivf.cp.seed = 0
        ivf.cp.max_points_per_centroid = TRAINING_ROWS_PER_LIST
        ivf.cp.min_points_per_centroid = 1  # a small bank has fewer than faiss would like, and it would say so
        ivf.nprobe = min(probes, ivf.nlist)
    if len(bank):
        index.train(bank.numpy())
        index.add(bank.numpy())
    return index


def iterate_neighbours(index: faiss.Index, classes: Tensor, queries: Tensor, k: int) -> Iterator[Neighbours]:
    """The k neighbours of each query, chunk by chunk in the queries' order; classes (N,) are those of the bank."""
    for chunk in queries.split(QUERIES_PER_SEARCH):
        yield search_index(index, classes, chunk, k)


def iterate_over_shards(index: faiss.Index, classes: Tensor, queries: Tensor, k: int) -> Iterator[Neighbours]:
    """`iterate_neighbours` of this process's queries in the bank of which each process holds a shard.

    The bank is nowhere put together: a chunk of everybody's queries goes to all processes, and what they find comes
    back. A process whose queries are used up yields chunks of none, until all are done.

    Distributed:
        Collective, and to be iterated to the end.
    """
    counts = row_counts(len(queries))
    size = max(1, QUERIES_PER_SEARCH // process_count())
    for start in range(0, max(counts), size):
        sizes = [min(max(count - start, 0), size) for count in counts]
        first = sum(sizes[: process_index()])
        own = slice(first, first + sizes[process_index()])
        found = search_index(index, classes, gather_rows(queries[start : start + size]), k)
        # Turned on the side, as shards of fewer than k rows give fewer candidates and only rows may differ in number.
        cosines, candidates = (gather_rows(values.T.contiguous())[:, own].T for values in found)
        yield nearest_candidates(Neighbours(cosines, candidates), k)


def search_index(index: faiss.Index, classes: Tensor, queries: Tensor, k: int) -> Neighbours:
    """The k neighbours of each query, or as many as the index has rows."""
    k = min(k, index.ntotal)
    if 0 in (k, len(queries)):
        return Neighbours(queries.new_zeros(len(queries), k), classes.new_zeros(len(queries), k))
    cosines, rows = (torch.from_numpy(values) for values in index.search(queries.numpy(), k))
    return Neighbours(cosines, classes[rows].where(rows >= 0, MISSING))


def nearest_candidates(candidates: Neighbours, k: int) -> Neighbours:
    """The k nearest of more candidates (M, at least k)."""
    cosines, places = candidates.cosines.topk(k, dim=1)
    return Neighbours(cosines, candidates.classes.gather(1, places))


def measure_recall(index: faiss.Index, bank: Tensor, queries: Tensor, k: int) -> float:
    """The fraction in [0, 1] of the exact k neighbours that the index finds, for 1,000 evenly spaced queries at most.

    A row as near as the k-th exact one counts as found, so that equal rows may stand for each other.

    Source: ann-benchmarks, whose recall has such a threshold too; here 1e-6, what float32 sums differ by.
    """
    sample = queries[:: -(-len(queries) // RECALL_QUERIES)].contiguous()
    found = torch.from_numpy(index.search(sample.numpy(), k)[0])
    exact = torch.from_numpy(create_index(bank, k, None).search(sample.numpy(), k)[0])
    return (found >= exact[:, -1:] - 1e-6).double().mean().item()
