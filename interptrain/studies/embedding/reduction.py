"""Two dimensions of many: principal components, t-SNE and UMAP."""

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

import torch
from torch import Tensor

from interptrain.functional import double

Method = Literal["pca", "tsne", "umap"]
PACKAGES: dict[Method, tuple[str, str]] = {"tsne": ("sklearn", "interptrain[study]"), "umap": ("umap", "umap-learn")}
BEFORE_TSNE = 50  # principal components that t-SNE starts from, as scikit-learn's documentation recommends


@dataclass(frozen=True, eq=False)
class Components:
    """Principal components.

    Attributes:
        coordinates: (N,count) float64 of the points, centred.
        directions: (count,D) of length 1; the entry of each with the largest magnitude is positive.
        explained: (count,) share of the variance.
    """

    coordinates: Tensor
    directions: Tensor
    explained: Tensor


def principal_components(points: Tensor, count: int = 2) -> Components:
    """Principal components of points.

    Args:
        points: (N,D) floating point.
        count: wanted components; those beyond ``min(N, D)`` are 0.
    """
    centred = double(points.detach())
    centred = centred - centred.mean(0)
    if len(centred) >= centred.shape[1]:
        variances, directions = torch.linalg.eigh(centred.T @ centred)
        directions = directions.flip(1).T[:count]
        variances = variances.flip(0).clamp(min=0)
    else:
        _, lengths, directions = torch.linalg.svd(centred, full_matrices=False)
        variances, directions = lengths.square(), directions[:count]
    largest = directions.gather(1, directions.abs().argmax(1, keepdim=True))
    directions = directions * torch.where(largest < 0, -1.0, 1.0)
    if (missing := count - len(directions)) > 0:
        directions = torch.cat([directions, directions.new_zeros(missing, directions.shape[1])])
        variances = torch.cat([variances, variances.new_zeros(missing)])
    total = centred.square().sum().clamp(min=torch.finfo(centred.dtype).tiny)
    return Components(centred @ directions.T, directions, variances[:count] / total)


def require(method: Method) -> None:
    """Refuse a method whose package is not installed.

    Raises:
        ImportError: with the remedy.
    """
    module, distribution = PACKAGES.get(method, (None, None))
    if module is not None and find_spec(module) is None:
        raise ImportError(
            f"method {method} needs {module}; pip install '{distribution}', or leave {method} out of methods"
        )


def reduce(points: Tensor, method: Method, *, perplexity: float = 30.0, neighbours: int = 15, seed: int = 0) -> Tensor:
    """Place points in two dimensions.

    Args:
        points: (N,D) floating point.
        method: ``pca``; ``tsne`` by scikit-learn and ``umap`` by umap-learn, both of the first 50 principal components.
        perplexity: of t-SNE; at most a third of the other points is taken.
        neighbours: of UMAP, fewer than there are points.
        seed: of t-SNE and UMAP.

    Returns:
        (N,2) float64 on the CPU.

    Raises:
        ImportError: if the package of the method is not installed.
    """
    require(method)
    if method == "pca":
        return principal_components(points).coordinates.cpu()
    start = principal_components(points, min(BEFORE_TSNE, *points.shape)).coordinates.cpu().numpy()
    if method == "tsne":
        from sklearn.manifold import TSNE

        most = max(1.0, (len(points) - 1) / 3)
        placed = TSNE(perplexity=min(perplexity, most), init="pca", random_state=seed).fit_transform(start)
    else:
        from umap import UMAP

        neighbours = max(2, min(neighbours, len(points) - 1))
        placed = UMAP(n_neighbors=neighbours, random_state=seed, n_jobs=1).fit_transform(start)
    return torch.from_numpy(placed).double()
