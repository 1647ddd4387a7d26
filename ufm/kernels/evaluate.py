"""Fit and gradient at one state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ufm.kernels import loop, losses
from ufm.kernels.contract import compiled
from ufm.kernels.layout import buffers_of, chain_of


def evaluate(problem: Any, theta: np.ndarray) -> tuple[float, np.ndarray]:
    """Fit over all samples and its gradient by the trained blocks, shape (problem.size,)."""
    head, value = losses.pair(problem.loss, "float64")
    grad = np.zeros(problem.size)
    chain, buffers = chain_of(problem, "float64"), buffers_of(problem, "float64")
    fit = compiled(evaluation(problem), "evaluate", "float64")(head, value, chain, buffers, theta, grad)
    return float(fit), grad


def evaluation(problem: Any) -> Callable[..., Any]:
    """The kernel that evaluates this problem, for `compiled`."""
    if problem.normalisation is None:
        return loop.evaluate
    from ufm.kernels import normalisation

    kernel: Callable[..., Any] = normalisation.evaluate
    return kernel
