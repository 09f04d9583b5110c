"""k-nearest-neighbour evaluation of frozen features, with faiss, under a protocol that is always printed."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ssl_adapt.errors import UserError
from ssl_adapt.evaluation.neighbour_search import (
    MISSING,
    Neighbours,
    create_index,
    iterate_neighbours,
    iterate_over_shards,
    measure_recall,
)
from ssl_adapt.evaluation.protocol import KnnProtocol
from ssl_adapt.processes import gather_objects, gather_rows
from ssl_adapt.unit_rows import unit_rows


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
        recall: fraction in [0, 1] of the exact neighbours that an IVF search found; None if the search was exact.
    """

    top1: float
    top5: float
    per_class: dict[int, float]
    protocol: KnnProtocol
    bank_count: int
    query_count: int
    recall: float | None = None

    def __str__(self) -> str:
        recall = "" if self.recall is None else f"; IVF search, recall {self.recall:.2%}"
        return (
            f"top-1 {self.top1:.2%}, top-5 {self.top5:.2%} "
            f"({self.protocol}; bank {self.bank_count:,}, queries {self.query_count:,}{recall})"
        )


def evaluate_knn(
    bank: Tensor,
    bank_labels: Tensor,
    queries: Tensor,
    query_labels: Tensor,
    protocol: KnnProtocol,
    *,
    class_count: int | None = None,
    sharded: bool = False,
    probes: int | None = None,
    advance: Callable[[int], object] | None = None,
) -> KnnResult:
    """The accuracy with which the bank's labels classify the queries, by exact cosine search unless `probes` is given.

    Labels are any integers. A class counts as predicted only if a neighbour voted for it, so that a query
    whose class is not in the bank is wrong, in the top-5 too. Equal votes go to the smaller label. Where
    similarities tie at rank k, faiss chooses which neighbour is in, or torch if ``sharded``. A feature of zeros
    has cosine 0 with all.

    Args:
        bank: (N, D) floating-point features on any device and of any finite size; normalised to unit length
            in this function. Their cosines are float32.
        bank_labels: (N,) integer labels.
        queries: (M, D) features.
        query_labels: (M,) integer labels.
        protocol: see `KnnProtocol`; its ``layer`` is only reported: the caller chooses the features.
        class_count: labels must be in 0..class_count - 1, and each is listed in ``per_class``.
        sharded: bank and queries are this process's share, which may be empty, and the score is that of all shares.
        probes: search only that many of about 4 * sqrt(N) lists of similar features (IVF), and report the recall. A
            query whose lists hold fewer than k features has fewer votes. Making the lists costs as much as the exact
            search of 10,000 to 15,000 queries. Not with ``sharded``, which divides the exact search instead.
        advance: called repeatedly with how many more of this process's queries are classified.

    Raises:
        ValueError: If shapes do not fit together, a set is empty, features are not finite, k exceeds the
            bank, a label is outside ``class_count``, or ``probes`` is below 1 or given with ``sharded``.

    Distributed:
        Collective only if ``sharded``: all processes call it, and get the same result or the same error. None holds
        more of the bank than its own share, or of the queries than its own and a chunk of the others'.

    Source: vote of Wu et al. 2018, section 3.4. Deviation from public code: classes without any vote
    are never in the top-5.
    """
    if probes is not None and sharded:
        raise UserError(f"probes is {probes} and the bank is sharded; pass probes=None: shards are searched exactly")
    if probes is not None and probes < 1:
        raise UserError(f"probes is {probes}; pass at least 1 list to search, or None for the exact search")
    bank, queries = (
        features.detach().to("cpu", torch.promote_types(features.dtype, torch.float32)) for features in (bank, queries)
    )
    share = _Share(
        tuple(bank.shape),
        tuple(queries.shape),
        _find_problem("bank", bank, bank_labels, class_count)
        or _find_problem("query", queries, query_labels, class_count),
    )
    shares = gather_objects(share) if sharded else [share]
    _check_shares(shares, protocol.k)
    bank, queries = (unit_rows(features).float().contiguous() for features in (bank, queries))
    bank_labels, query_labels = (labels.detach().to("cpu", torch.int64) for labels in (bank_labels, query_labels))

    gather, iterate = (gather_rows, iterate_over_shards) if sharded else (_keep_rows, iterate_neighbours)
    classes = gather(bank_labels.unique()).unique()
    index = create_index(bank, protocol.k, probes)
    neighbours = iterate(index, torch.searchsorted(classes, bank_labels), queries, protocol.k)
    hits = gather(_find_hits(neighbours, classes, query_labels, protocol, advance))
    labels = gather(query_labels)
    seen = torch.cat([classes, labels]).unique().tolist() if class_count is None else range(class_count)
    return KnnResult(
        top1=hits[:, 0].double().mean().item(),
        top5=hits.any(dim=1).double().mean().item(),
        per_class={label: hits[labels == label, 0].double().mean().item() for label in seen},
        protocol=protocol,
        bank_count=sum(share.bank[0] for share in shares),
        query_count=len(labels),
        recall=None if probes is None else measure_recall(index, bank, queries, protocol.k),
    )


def predict_classes(
    bank: Tensor,
    bank_labels: Tensor,
    queries: Tensor,
    protocol: KnnProtocol,
    *,
    advance: Callable[[int], object] | None = None,
) -> Tensor:
    """The label (M,) that gets the most votes for each query: the one that `evaluate_knn` counts in its top-1.

    Args and Raises: as `evaluate_knn`; the search is exact and in this process alone.
    """
    bank, queries = (features.detach().to("cpu") for features in (bank, queries))
    problem = _find_problem("bank", bank, bank_labels, None) or _find_problem(
        "query", queries, torch.zeros(len(queries), dtype=torch.int64), None
    )
    _check_shares([_Share(tuple(bank.shape), tuple(queries.shape), problem)], protocol.k)
    bank, queries = (unit_rows(features).float().contiguous() for features in (bank, queries))
    classes, places = bank_labels.detach().to("cpu", torch.int64).unique(return_inverse=True)
    predicted = []
    for chunk in iterate_neighbours(create_index(bank, protocol.k, None), places, queries, protocol.k):
        predicted.append(_rank_classes(chunk, classes, protocol)[0][:, 0])
        if advance is not None:
            advance(len(predicted[-1]))
    return torch.cat(predicted)


def _keep_rows(rows: Tensor) -> Tensor:
    return rows


def _find_hits(
    neighbours: Iterator[Neighbours],
    classes: Tensor,
    query_labels: Tensor,
    protocol: KnnProtocol,
    advance: Callable[[int], object] | None,
) -> Tensor:
    """Booleans (M, at most 5): whether the query's label is the one with the most, second most, ... votes."""
    hits = []
    done = 0
    for chunk in neighbours:
        ranking, has_votes = _rank_classes(chunk, classes, protocol)
        labels = query_labels[done : done + len(ranking), None]
        hits.append(((ranking == labels) & has_votes)[:, :5])
        done += len(ranking)
        if advance is not None:
            advance(len(ranking))
    return torch.cat(hits)


def _rank_classes(neighbours: Neighbours, classes: Tensor, protocol: KnnProtocol) -> tuple[Tensor, Tensor]:
    """Labels (M, C) from the most votes to the fewest, and whether each got any."""
    votes = _count_votes(neighbours, len(classes), protocol)
    votes, ranking = votes.sort(dim=1, descending=True, stable=True)
    return classes[ranking], votes.isfinite()


def _count_votes(neighbours: Neighbours, class_count: int, protocol: KnnProtocol) -> Tensor:
    """Votes (M, class_count) of the neighbours; -inf: no votes."""
    found = neighbours.classes != MISSING
    cosines = neighbours.cosines.double().where(found, 0)
    classes = neighbours.classes.where(found, 0)

    def sum_per_class(values: Tensor) -> Tensor:
        return cosines.new_zeros(len(cosines), class_count).scatter_add_(1, classes, values * found)

    counts = sum_per_class(torch.ones_like(cosines))
    if protocol.temperature is None:
        # the sum of at most k cosines, mapped into [0, 1), breaks ties between equal counts
        votes = counts + (sum_per_class(cosines) + protocol.k) / (2 * protocol.k + 1)
    else:
        # relative to the nearest neighbour: the same order, and no overflow at any temperature
        votes = sum_per_class(((cosines - cosines[:, :1]) / protocol.temperature).exp())
    return votes.masked_fill(counts == 0, -torch.inf)


class _Share(NamedTuple):
    """What the processes exchange about their shares, so that all of them raise the same error or none."""

    bank: tuple[int, ...]
    queries: tuple[int, ...]
    problem: str | None


def _check_shares(shares: Sequence[_Share], k: int) -> None:
    """Raises ValueError unless all shares together can be evaluated."""
    for share in shares:
        if share.problem is not None:
            raise UserError(share.problem)
    bank_dims, query_dims = {share.bank[1] for share in shares}, {share.queries[1] for share in shares}
    if len(bank_dims | query_dims) > 1:
        bank_dim, query_dim = (" or ".join(map(str, sorted(dims))) for dims in (bank_dims, query_dims))
        raise UserError(
            f"bank features have {bank_dim} dimensions and query features {query_dim}; "
            "extract both with the same network"
        )
    bank_count, query_count = sum(share.bank[0] for share in shares), sum(share.queries[0] for share in shares)
    if 0 in (bank_count, query_count):
        what = "query" if bank_count else "bank"
        raise UserError(f"{what} features have shape {(0, *bank_dims)}; pass (N, D) with N and D at least 1")
    if k > bank_count:
        raise UserError(f"k is {k} but the bank holds {bank_count} features; set k to at most {bank_count}")


def _find_problem(what: str, features: Tensor, labels: Tensor, class_count: int | None) -> str | None:
    """Why features, floats on the CPU, and labels of one process can't be evaluated; there may be none of them."""
    if features.ndim != 2 or features.shape[1] == 0:
        return f"{what} features have shape {tuple(features.shape)}; pass (N, D) with N and D at least 1"
    if labels.shape != features.shape[:1]:
        return (
            f"there are {len(features)} {what} features and labels of shape {tuple(labels.shape)}; "
            "pass one label for each feature"
        )
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        return f"{what} labels are {labels.dtype}; pass integers, e.g. labels.long()"
    if class_count is not None and len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < class_count:
        return (
            f"{what} labels run from {int(labels.min())} to {int(labels.max())} and class_count is "
            f"{class_count}; pass labels in 0..class_count - 1 or leave class_count out"
        )
    bad = int((~torch.linalg.vector_norm(features, torch.inf, dim=1).isfinite()).sum())
    if bad:
        return (
            f"{bad} of {len(features)} {what} features are not finite; look for a diverged loss or a wrong "
            "normalisation of the images"
        )
    return None
