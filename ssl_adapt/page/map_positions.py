"""Places of features on a map: their principal components, and t-SNE."""

import warnings
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.manifold import TSNE
from torch import Tensor

FEWEST = 5  # images that a map is drawn of
COMPONENTS = 50  # that t-SNE sees
PERPLEXITY = 30.0
_SAME = 1e-10  # variance of rows of length 1, below which they are all the same


class Positions(NamedTuple):
    """Places (N, 2) in [0, 1], and the share of the features' variance in the first two components."""

    pca: NDArray[np.float64]
    tsne: NDArray[np.float64]
    pca_share: float


def find_positions(rows: Tensor) -> Positions | None:
    """The places of features (N, D) of length 1, the same at each call; None if they are too few, or all the same.

    Source: van der Maaten and Hinton 2008, after 50 principal components as there.
    """
    if len(rows) < FEWEST or rows.double().var(dim=0).sum() < _SAME:
        return None
    pca = PCA(min(COMPONENTS, *rows.shape), random_state=0)
    components = pca.fit_transform(rows.numpy())
    if components.shape[1] == 1:
        components = np.pad(components, ((0, 0), (0, 1)))
    perplexity = min(PERPLEXITY, (len(rows) - 1) / 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        tsne = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(components)
    return Positions(_fitted(components[:, :2]), _fitted(tsne), float(pca.explained_variance_ratio_[:2].sum()))


def _fitted(places: NDArray[np.floating]) -> NDArray[np.float64]:
    """Moved and scaled so that each coordinate runs from 0 to 1."""
    low, high = places.min(axis=0), places.max(axis=0)
    fitted: NDArray[np.float64] = ((places - low) / np.maximum(high - low, 1e-12)).astype(np.float64).round(4)
    return fitted
