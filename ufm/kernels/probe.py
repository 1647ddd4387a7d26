"""Trials of a user's own loss at random logits: does it compile, is R its derivative, is it shift-invariant."""

from __future__ import annotations

from typing import Any

import numpy as np

from ufm.errors import IncompatibleError

CLASSES, COLUMNS = 5, 4
SCALES = (1.0, 30.0, 1e3)  # sizes of the logits at which shift invariance is tried
STEP = 1e-5  # of the central difference: truncation STEP^2, round-off eps/STEP


def _trial(loss: Any, Z: np.ndarray) -> tuple[float, np.ndarray]:
    """Value and residual of the user's function as the kernels call it."""
    from ufm.kernels.losses import pair

    head, value = pair(loss, "float64")
    targets = np.eye(CLASSES)[:, :COLUMNS].copy()
    segments, work, R = np.zeros(CLASSES + 1, np.int64), np.zeros(3 * COLUMNS), np.full_like(Z, np.nan)
    parameters = np.zeros(2)
    head(Z, segments, targets, parameters, 1.0, R, work)
    return float(value(Z, segments, targets, parameters, 1.0)), R


def check_residual(loss: Any) -> None:
    """Refuse a user's loss that does not compile or whose R is not the derivative of its value."""
    name = getattr(loss.residual, "__name__", "residual")
    Z = np.random.default_rng(1).standard_normal((CLASSES, COLUMNS))
    value, R = _trial(loss, Z)
    for k in range(CLASSES):
        for i in range(COLUMNS):
            shifted = Z.copy()
            shifted[k, i] = Z[k, i] + STEP
            above = _trial(loss, shifted)[0]
            shifted[k, i] = Z[k, i] - STEP
            slope = (above - _trial(loss, shifted)[0]) / (2 * STEP)
            allowed = 1e-4 * (abs(slope) + np.max(np.abs(R))) + 1e-9 * abs(value)
            if not abs(R[k, i] - slope) <= allowed:
                raise IncompatibleError(
                    f"UserLoss.residual {name} fills R[{k}, {i}] with {R[k, i]:.6g} where its value has the derivative "
                    f"{slope:.6g}; allowed: R = d value / d Z."
                )


def shift_invariant(loss: Any) -> bool:
    """Whether value and residual stay, and columns of R sum to zero, when every sample's logits are shifted.

    Tried at logits of several sizes: a term such as (z - 8)_+^2 is seen at large ones only. A size at which the
    loss leaves the finite numbers decides nothing; a loss that is finite at none is taken not to be invariant.
    """
    answers = [answer for scale in SCALES if (answer := _invariant_at(loss, scale)) is not None]
    return bool(answers) and all(answers)


def _invariant_at(loss: Any, scale: float) -> bool | None:
    """The answer at logits and shifts of one size; None where the loss is not finite there."""
    rng = np.random.default_rng(2)
    Z = scale * rng.standard_normal((CLASSES, COLUMNS))
    with np.errstate(all="ignore"):
        try:
            value, R = _trial(loss, Z)
            other, S = _trial(loss, Z + scale * rng.standard_normal(COLUMNS))
        except ArithmeticError:  # a division by zero, under numba's error model
            return None
        if not (np.isfinite([value, other]).all() and np.isfinite(R).all() and np.isfinite(S).all()):
            return None
        # a logit of this size carries a rounding error of eps times it into whatever the loss makes of it
        size, noise = np.max(np.abs(R)), 1e-12 * (1.0 + scale)
        close = 1e-12 * max(1.0, abs(value)) + noise * size * CLASSES * COLUMNS
        return bool(
            abs(other - value) <= close
            and np.max(np.abs(R.sum(axis=0))) <= 1e-12 * max(size, 1e-300) * CLASSES
            and np.max(np.abs(S - R)) <= 10 * noise * max(size, 1e-300)
        )
