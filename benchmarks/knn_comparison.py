"""Comparison of kNN classification: ours with faiss, and a loop over torch's matmul and topk."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.timing import Comparison, DisagreementError
from ssl_adapt.evaluation.knn import evaluate_knn
from ssl_adapt.evaluation.protocol import KnnProtocol

CLASSES = 10
WRONG_LABELS = 0.2  # so that the right score is not simply 1
QUERIES_PER_CHUNK = 512


def compare_knn(bank_count: int, query_count: int, *, device: torch.device, dim: int = 512, k: int = 200) -> Comparison:
    """The top-1 score of queries on a bank of clustered features, votes weighted by exp(cos / 0.5)."""
    centres = torch.randn(CLASSES, dim)
    bank, bank_labels = (values.to(device) for values in draw_features(bank_count, centres))
    queries, query_labels = (values.to(device) for values in draw_features(query_count, centres))
    temperature = 0.5
    protocol = KnnProtocol(layer="backbone", k=k, temperature=temperature, weighting="exp")

    def search_with_faiss() -> float:
        return evaluate_knn(bank, bank_labels, queries, query_labels, protocol).top1

    def search_with_topk() -> float:
        return score_with_topk(bank, bank_labels, queries, query_labels, k=k, temperature=temperature)

    return Comparison(
        name=f"knn: bank {bank_count:,}, queries {query_count:,}, {dim}-d, k {k}",
        shows="whether faiss is worth it against two lines of torch; both must give the same top-1",
        contenders={"ours (faiss)": search_with_faiss, "torch matmul and topk": search_with_topk},
        unit="queries",
        units_per_call=query_count,
        notes=("ours also checks its input and gives top-5 and the score of each class",),
        check=check_scores,
    )


def draw_features(count: int, centres: Tensor) -> tuple[Tensor, Tensor]:
    """Features (count, D) around their class's centre and labels (count,), of which a share is wrong."""
    classes = torch.randint(len(centres), (count,))
    features = centres[classes] + torch.randn(count, centres.shape[1])
    labels = torch.where(torch.rand(count) < WRONG_LABELS, torch.randint(len(centres), (count,)), classes)
    return features, labels


def score_with_topk(
    bank: Tensor, bank_labels: Tensor, queries: Tensor, query_labels: Tensor, *, k: int, temperature: float
) -> float:
    """Top-1 fraction in [0, 1] by exact cosine search with torch, as public SimCLR code does it."""
    bank = F.normalize(bank, dim=1)
    correct = torch.zeros((), dtype=torch.int64, device=bank.device)
    for chunk, labels in zip(queries.split(QUERIES_PER_CHUNK), query_labels.split(QUERIES_PER_CHUNK), strict=True):
        cosines, neighbours = (F.normalize(chunk, dim=1) @ bank.T).topk(k)
        votes = cosines.new_zeros(len(chunk), CLASSES)
        votes.scatter_add_(1, bank_labels[neighbours], (cosines / temperature).exp())
        correct += (votes.argmax(1) == labels).sum()
    return correct.item() / len(queries)


def check_scores(scores: Mapping[str, float]) -> None:
    """Raises DisagreementError unless all top-1 scores are equal."""
    if len(set(scores.values())) > 1:
        raise DisagreementError(f"the top-1 scores of kNN differ: {dict(scores)}")
