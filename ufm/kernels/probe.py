"""Trials of a user's own loss at random logits: does it compile, is R its derivative, is it shift-invariant."""

from __future__ import annotations

from typing import Any

import numpy as np

from ufm.errors import IncompatibleError

CLASSES, COLUMNS = 5, 4
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
    from numba.core.errors import NumbaError

    name = getattr(loss.residual, "__name__", "residual")
    Z = np.random.default_rng(1).standard_normal((CLASSES, COLUMNS))
    try:
        value, R = _trial(loss, Z)
    except NumbaError as error:
        first = str(error).strip().splitlines()
        cause = next(
            (line for line in reversed(first) if line.strip() and not line.startswith(" ")), first[0]
        )
        raise IncompatibleError(
            f"UserLoss.residual {name} does not compile with numba: {cause.strip()}"
        ) from None
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
    """Whether value and residual stay, and columns of R sum to zero, when every sample's logits are shifted."""
    rng = np.random.default_rng(2)
    Z = rng.standard_normal((CLASSES, COLUMNS))
    value, R = _trial(loss, Z)
    other, S = _trial(loss, Z + rng.standard_normal(COLUMNS))
    size = np.max(np.abs(R))
    close = 1e-12 * max(1.0, abs(value))
    return bool(abs(other - value) <= close and np.max(np.abs(R.sum(axis=0))) <= 1e-12 * max(size, 1e-300) * CLASSES
                and np.max(np.abs(S - R)) <= 1e-11 * max(size, 1e-300))  # fmt: skip
