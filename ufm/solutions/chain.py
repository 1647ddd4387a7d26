"""What every explicit solution asks of its problem, and how a product is shared among the factors of a chain."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ufm.decay import per_block
from ufm.errors import IncompatibleError, invalid
from ufm.losses import MSE, CrossEntropy

if TYPE_CHECKING:
    from ufm.decay import Decay
    from ufm.problems import Problem


LARGEST_RATE = 1e150  # products of two rates stay within float64


class Rates(NamedTuple):
    """Decay of the features, of each layer's weights, and the samples per class."""

    features: float
    weights: tuple[float, ...]
    samples: int


def rates_of(
    where: str, problem: Problem, decay: Decay | None, loss: type[MSE] | type[CrossEntropy]
) -> Rates:
    """Rates of a problem that has solutions in closed form: plain loss, equal classes, every block decays.

    Raises
    ------
    InvalidProblemError, IncompatibleError
        With the hypothesis that fails.
    """
    if problem.normalisation is not None:
        raise IncompatibleError(
            f"{where}: problem.normalisation is {problem.normalisation!r}; allowed: a problem without."
        )
    if problem.loss != loss():
        raise IncompatibleError(f"{where}: problem.loss is {problem.loss!r}; allowed: {loss()!r}.")
    if problem.bias:
        raise IncompatibleError(f"{where}: problem.bias is True; allowed: a problem without bias.")
    frozen = [block for block in problem.blocks if block not in problem.trained]
    if frozen:
        raise IncompatibleError(f"{where}: block {frozen[0]} is frozen; allowed: every block trained.")
    if len(set(problem.class_sizes)) > 1:
        raise invalid(f"{where}: problem.per_class", problem.per_class, "classes of equal size")
    coupled, decoupled = per_block(decay, problem)
    for block in problem.blocks:
        if decoupled[block]:
            raise invalid(f"{where}: decoupled decay of {block}", decoupled[block], "coupled decay alone")
        if not 1 / LARGEST_RATE <= coupled[block] <= LARGEST_RATE:
            allowed = f"a number > 0 for every block, from {1 / LARGEST_RATE:g} to {LARGEST_RATE:g}"
            raise invalid(f"{where}: coupled decay of {block}", coupled[block], allowed)
    weights = tuple(coupled[f"W{layer}"] for layer in range(1, problem.depth + 1))
    return Rates(coupled["H"], weights, problem.class_sizes[0])


def require_widths(where: str, problem: Problem, least: tuple[int, ...]) -> None:
    """Refuse a problem whose layers H_1 ... H_L have fewer rows than these."""
    if any(width < rows for width, rows in zip(problem.widths, least, strict=True)):
        raise invalid(f"{where}: problem.width", problem.widths, f"at least {least}, layer by layer")


def balanced_pair(means: np.ndarray, rates: Rates, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """W_1 and one column of H for each class, of least penalty together, with product `means`.

    Parameters
    ----------
    means : ndarray, shape (rows, classes)
        Class means of H_2.
    rates : Rates
    rank : int
        Rank of `means`.

    Returns
    -------
    W1 : ndarray, shape (rows, rank)
    H : ndarray, shape (rank, classes)
    """
    U, values, V = np.linalg.svd(means, full_matrices=False)
    U, values, V = U[:, :rank], values[:rank], V[:rank]
    # lW_1 ||W_1||^2 = n lH ||H||^2 in every direction
    ratio = (rates.samples * rates.features / rates.weights[0]) ** 0.25
    root = np.sqrt(values)
    return U * (root * ratio), (root / ratio)[:, None] * V


def placed(problem: Problem, block: str, parts: list[np.ndarray]) -> np.ndarray:
    """A block with these matrices along its diagonal and zeros elsewhere; one column per class for H."""
    rows, columns = problem.shapes[block]
    found = np.zeros((rows, problem.classes if block == "H" else columns))
    row = column = 0
    for part in parts:
        found[row : row + part.shape[0], column : column + part.shape[1]] = part
        row, column = row + part.shape[0], column + part.shape[1]
    return found[:, problem.labels] if block == "H" else found
