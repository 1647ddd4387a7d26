"""Batch normalisation inside a chain: every row of a layer gets mean 0 and variance 1 over the samples of the batch.

    H_l  ->  diag(gamma) BN(H_l),   BN(x)_i = (x_i - mean(x)) / sqrt(mean((x - mean(x))^2) + eps)

row by row, with the biased variance and no shift behind it. The scales gamma are blocks of the state: "gamma" of H_1,
"gamma2" of H_2 and so on; they start, decay and freeze like any block. A run's features are those behind the
normalisation; the block "H" is what is normalised, so the objective does not change along H -> a H + v 1^T, a > 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ufm.checks import real, whole
from ufm.errors import IncompatibleError, InvalidProblemError, invalid

if TYPE_CHECKING:
    from ufm.problems import Problem


@dataclass(frozen=True)
class BatchNorm:
    """Normalise H_1, or the pre-activations of several layers, over the samples of a batch.

    Parameters
    ----------
    eps : float
        Added to the variances. With 0 a row that is constant over a batch has no normalised form, and a run that
        meets one ends as diverged.
    layers : sequence of int
        Which H_l are normalised; 1 is H_1, and H_l with l >= 2 before its activation.

    Raises
    ------
    InvalidProblemError
        For a negative eps, and for layers that are no different whole numbers >= 1.

    Examples
    --------
    >>> import ufm
    >>> problem = ufm.UFM(classes=3, width=2, per_class=2, normalisation=BatchNorm())
    >>> problem.shapes["gamma"], problem.formula(ufm.Coupled(W=0.1, gamma=0.1)).partition(",  ")[2]
    ((2,), 'Z = W1 diag(gamma) BN(H)')
    """

    eps: float = 0.0
    layers: Sequence[int] = (1,)

    def __post_init__(self) -> None:
        object.__setattr__(self, "eps", real("BatchNorm.eps", self.eps, 0.0))
        allowed = "different layers, whole numbers >= 1, such as (1, 2)"
        try:
            layers = tuple(sorted(whole("BatchNorm.layers", layer) for layer in self.layers))
        except (TypeError, InvalidProblemError):
            raise invalid("BatchNorm.layers", self.layers, allowed) from None
        if not layers or len(set(layers)) < len(layers):
            raise invalid("BatchNorm.layers", self.layers, allowed)
        object.__setattr__(self, "layers", layers)


def scale_name(layer: int) -> str:
    """Block that scales the rows of H_l: "gamma", "gamma2", "gamma3", ..."""
    return "gamma" if layer == 1 else f"gamma{layer}"


def standardised(X: np.ndarray, eps: float = 0.0) -> np.ndarray:
    """Rows minus their means, over their standard deviations; nan for a constant row if eps is 0.

    Parameters
    ----------
    X : ndarray, shape (..., rows, samples)
    eps : float
        Added to the variances.

    Examples
    --------
    >>> standardised(np.array([[1.0, 3.0], [5.0, 5.0]]), eps=1e-5).round(3).tolist()
    [[-1.0, 1.0], [0.0, 0.0]]
    """
    # relative to the first sample, so that a constant row has variance 0 to the last bit
    shifted = X - X[..., :1]
    centred = shifted - shifted.mean(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        found: np.ndarray = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + eps)
        return found


def behind(problem: Problem, blocks: Mapping[str, Any], layer: int, X: np.ndarray) -> np.ndarray:
    """H_l behind the normalisation, where the problem has one: diag(gamma) BN(X), shape of X; else X itself."""
    if problem.normalisation is None or layer not in problem.scales:
        return X
    scaled: np.ndarray = blocks[problem.scales[layer]][..., None] * standardised(X, problem.normalisation.eps)
    return scaled


def other_features(problem: Problem) -> str | None:
    """Why a statement about features as they are says nothing of this problem, or None."""
    if problem.normalisation is None:
        return None
    return (
        f"the features pass through {problem.normalisation!r}, and the statement is for features as they are"
    )


def refuse_signs(where: str, problem: Problem) -> None:
    """Refuse to take signs of a normalised problem's gradient, or to carry its exponents."""
    if problem.normalisation is not None:
        raise IncompatibleError(
            f"{where}: the problem has {problem.normalisation!r}, behind which neither an error bound of signs nor "
            "carried exponents are known; allowed: problems without normalisation, or optimizers that depend on the "
            "gradient's scale, such as GD, Momentum or Adam."
        )


def constant_row(problem: Problem) -> str:
    """What may be wrong where the logits of a normalised problem are not finite, as the end of a sentence."""
    if problem.normalisation is None or problem.normalisation.eps > 0:
        return ""
    return (
        "; or a row that is normalised is constant over the samples of a batch, which has no normalised form while "
        "BatchNorm.eps is 0"
    )
