"""k-nearest-neighbour evaluation of frozen features, with faiss, under a protocol that is always printed."""

import difflib
from dataclasses import dataclass
from typing import Literal, get_args

import faiss
import torch
import torch.nn.functional as F
from torch import Tensor

Layer = Literal["backbone", "projection"]
Weighting = Literal["exp", "majority"]

QUERIES_PER_SEARCH = 512  # bounds the (queries, classes) table of votes
FAISS_GPU_MAX_K = 2048  # the selection kernels of faiss stop here; a larger k is searched on the CPU


@dataclass(frozen=True, kw_only=True)
class KnnProtocol:
    """Everything that a kNN score depends on beside the features and the labels.

    Attributes:
        layer: which features are compared: those of the backbone, or those after the projector.
        k: number of neighbours, at least 1.
        temperature: a neighbour votes with exp(cosine / temperature); None for a majority vote.
        weighting: "exp", or "majority": one neighbour, one vote; the summed cosine breaks ties.

    Raises:
        ValueError: If a value is not one of these.
    """

    layer: Layer
    k: int
    temperature: float | None
    weighting: Weighting

    def __post_init__(self) -> None:
        if self.layer not in get_args(Layer):
            raise ValueError(f"unknown kNN layer {self.layer!r}; choose one of: {', '.join(get_args(Layer))}")
        if self.weighting not in get_args(Weighting):
            choices = ", ".join(get_args(Weighting))
            raise ValueError(f"unknown kNN weighting {self.weighting!r}; choose one of: {choices}")
        if self.k < 1:
            raise ValueError(f"kNN needs k >= 1, got {self.k}; the SimCLR protocol uses 200")
        if self.weighting == "exp" and not (self.temperature is not None and self.temperature > 0):
            raise ValueError(f"weighting 'exp' needs a temperature > 0, got {self.temperature}; SimCLR uses 0.5")
        if self.weighting == "majority" and self.temperature is not None:
            raise ValueError(f"a majority vote has no temperature, got {self.temperature}; set it to None (null)")

    @classmethod
    def preset(cls, name: str) -> "KnnProtocol":
        """A protocol in use, by name: simclr_cifar, instdisc, dino or plain; all on backbone features.

        Raises:
            ValueError: If there is no preset of that name; the message holds the nearest one.

        Source: simclr_cifar: leftthomas/SimCLR and the paper's k. instdisc: Wu et al. 2018, section 3.4,
        whose features are the 128-d embedding; here on the backbone, as lightly's benchmarks do. dino:
        Caron et al. 2021, appendix on k-NN. plain: a majority vote with DINO's k, as 200 neighbours are more
        than many sets have images of a class.
        """
        if name not in PRESETS:
            close = difflib.get_close_matches(name, PRESETS, n=1, cutoff=0.5)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise ValueError(f"unknown kNN protocol {name!r}; {hint}available: {', '.join(PRESETS)}")
        return PRESETS[name]

    def __str__(self) -> str:
        vote = "majority vote" if self.weighting == "majority" else f"weights exp(cos/{self.temperature:g})"
        return f"kNN on {self.layer} features, k {self.k}, {vote}"


PRESETS = {
    "simclr_cifar": KnnProtocol(layer="backbone", k=200, temperature=0.5, weighting="exp"),
    "instdisc": KnnProtocol(layer="backbone", k=200, temperature=0.1, weighting="exp"),
    "dino": KnnProtocol(layer="backbone", k=20, temperature=0.07, weighting="exp"),
    "plain": KnnProtocol(layer="backbone", k=20, temperature=None, weighting="majority"),
}


@dataclass(frozen=True)
class KnnResult:
    """A kNN score together with how it was measured.

    Attributes:
        top1: fraction in [0, 1] of the queries whose class got the most votes.
        top5: fraction in [0, 1] of the queries whose class is among the five with the most votes.
        per_class: top-1 fraction for each label of the bank or the queries, in order; NaN without queries.
        protocol: the protocol it was measured under.
        bank_count: number of labelled features that were searched.
        query_count: number of features that were classified.
    """

    top1: float
    top5: float
    per_class: dict[int, float]
    protocol: KnnProtocol
    bank_count: int
    query_count: int

    def __str__(self) -> str:
        return (
            f"top-1 {self.top1:.2%}, top-5 {self.top5:.2%} "
            f"({self.protocol}; bank {self.bank_count:,}, queries {self.query_count:,})"
        )


def evaluate_knn(
    bank: Tensor,
    bank_labels: Tensor,
    queries: Tensor,
    query_labels: Tensor,
    protocol: KnnProtocol,
    *,
    class_count: int | None = None,
) -> KnnResult:
    """The accuracy with which the bank's labels classify the queries, by exact cosine search.

    Labels are any integers. A class counts as predicted only if a neighbour voted for it, so that a query
    whose class is not in the bank is wrong, in the top-5 too. Equal votes go to the smaller label. Where
    similarities tie at rank k, faiss chooses which neighbour is in. A feature of zeros has cosine 0 with all.

    Args:
        bank: (N, D) floating-point features on any device; normalised to unit length in here, in float32.
        bank_labels: (N,) integer labels.
        queries: (M, D) features.
        query_labels: (M,) integer labels.
        protocol: see `KnnProtocol`; its ``layer`` is what the caller has fed, and is only reported.
        class_count: promises labels in 0..class_count - 1 and lists each of them in ``per_class``.

    Raises:
        ValueError: If shapes do not fit together, a set is empty, features are not finite, k exceeds the
            bank, or a label is outside ``class_count``.

    Source: vote of Wu et al. 2018, section 3.4. Deviation from public code: classes without any vote
    never fill up the top-5.
    """
    bank, bank_labels = _checked("bank", bank, bank_labels, class_count)
    queries, query_labels = _checked("query", queries, query_labels, class_count)
    if bank.shape[1] != queries.shape[1]:
        raise ValueError(
            f"bank features have {bank.shape[1]} dimensions and query features {queries.shape[1]}; "
            "extract both with the same network"
        )
    if protocol.k > len(bank):
        raise ValueError(f"k is {protocol.k} but the bank holds {len(bank)} features; set k to at most {len(bank)}")

    hits = _find_hits(bank, bank_labels, queries, query_labels, protocol)
    seen = torch.cat([bank_labels, query_labels]).unique().tolist()
    return KnnResult(
        top1=hits[:, 0].double().mean().item(),
        top5=hits.any(dim=1).double().mean().item(),
        per_class={
            label: hits[query_labels == label, 0].double().mean().item()
            for label in (seen if class_count is None else range(class_count))
        },
        protocol=protocol,
        bank_count=len(bank),
        query_count=len(queries),
    )


def _find_hits(
    bank: Tensor, bank_labels: Tensor, queries: Tensor, query_labels: Tensor, protocol: KnnProtocol
) -> Tensor:
    """Booleans (M, at most 5): whether the query's label is the one with the most, second most, ... votes."""
    index = _create_index(bank, protocol.k)
    classes, bank_classes = bank_labels.unique(return_inverse=True)
    hits = []
    for chunk, labels in zip(queries.split(QUERIES_PER_SEARCH), query_labels.split(QUERIES_PER_SEARCH), strict=True):
        cosines, neighbours = index.search(chunk.numpy(), protocol.k)
        votes = _count_votes(
            torch.from_numpy(cosines).double(),
            bank_classes[torch.from_numpy(neighbours)],
            len(classes),
            protocol,
        )
        votes, ranking = votes.sort(dim=1, descending=True, stable=True)
        hits.append(((classes[ranking] == labels[:, None]) & votes.isfinite())[:, :5])
    return torch.cat(hits)


def _count_votes(cosines: Tensor, classes: Tensor, class_count: int, protocol: KnnProtocol) -> Tensor:
    """Votes (M, class_count) from the (M, k) cosines and classes of the neighbours; -inf: nobody voted."""

    def sum_per_class(values: Tensor) -> Tensor:
        return cosines.new_zeros(len(cosines), class_count).scatter_add_(1, classes, values)

    counts = sum_per_class(torch.ones_like(cosines))
    if protocol.temperature is None:
        # the sum of at most k cosines, squeezed into [0, 1), orders equal counts and never unequal ones
        votes = counts + (sum_per_class(cosines) + protocol.k) / (2 * protocol.k + 1)
    else:
        # relative to the nearest neighbour: the same order, and no overflow at any temperature
        nearest = cosines.amax(dim=1, keepdim=True)
        votes = sum_per_class(((cosines - nearest) / protocol.temperature).exp())
    return votes.masked_fill(counts == 0, -torch.inf)


def _create_index(bank: Tensor, k: int) -> faiss.Index:
    """An exact inner-product index of the bank, on a GPU when faiss sees one (not run on a GPU)."""
    index: faiss.Index = faiss.IndexFlatIP(bank.shape[1])
    if faiss.get_num_gpus() > 0 and k <= FAISS_GPU_MAX_K:
        # Features reach faiss as CPU arrays: torch has finished writing them, so there are no streams to
        # synchronise, whose neglect gives silently wrong neighbours.
        device = torch.cuda.current_device() if torch.cuda.is_available() else 0
        index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), device, index)
    index.add(bank.numpy())
    return index


def _checked(what: str, features: Tensor, labels: Tensor, class_count: int | None) -> tuple[Tensor, Tensor]:
    """Features as unit rows, float32, contiguous, and labels as int64, both on the CPU.

    Raises:
        ValueError: If they cannot be evaluated; ``what`` is their name in the message.
    """
    if features.ndim != 2 or 0 in features.shape:
        raise ValueError(f"{what} features have shape {tuple(features.shape)}; pass (N, D) with N and D at least 1")
    if labels.shape != features.shape[:1]:
        raise ValueError(
            f"there are {len(features)} {what} features and labels of shape {tuple(labels.shape)}; "
            "pass one label for each feature"
        )
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise ValueError(f"{what} labels are {labels.dtype}; pass integers, e.g. labels.long()")
    if class_count is not None and not 0 <= int(labels.min()) <= int(labels.max()) < class_count:
        raise ValueError(
            f"{what} labels run from {int(labels.min())} to {int(labels.max())} and class_count is "
            f"{class_count}; pass labels in 0..class_count - 1 or leave class_count out"
        )
    features = features.detach().to("cpu", torch.float32)
    bad = int((~torch.linalg.vector_norm(features, dim=1).isfinite()).sum())
    if bad:
        raise ValueError(
            f"{bad} of {len(features)} {what} features are not finite (or overflow float32 when squared); "
            "look for a diverged loss or a wrong normalisation of the images"
        )
    return F.normalize(features, dim=1).contiguous(), labels.detach().to("cpu", torch.int64)
