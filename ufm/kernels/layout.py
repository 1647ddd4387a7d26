"""From the description objects to the tuples that kernels read."""

from __future__ import annotations

from typing import Any

import numpy as np

from ufm.decay import per_block, shrinks_after
from ufm.kernels.contract import Bounds, Buffers, Chain, Step
from ufm.kernels.losses import parameters


def chain_of(problem: Any, dtype: str) -> Chain:
    """The problem as kernels see it."""
    weights = [name for name in problem.blocks if name != "b"]
    table = [(problem.offsets[name], *problem.shapes[name]) for name in weights]
    trained = [name in problem.trained for name in weights] + ["b" in problem.trained]
    targets = np.zeros((0, 0)) if problem.targets is None else problem.targets
    return Chain(
        table=np.array(table, np.int64),
        trained=np.array(trained, np.int64),
        bias=problem.offsets.get("b", -1),
        relu=int(problem.activation == "relu"),
        segments=np.concatenate([[0], np.cumsum(problem.class_sizes)]).astype(np.int64),
        labels=np.array(problem.labels, np.int64),
        targets=np.array(
            targets, dtype, order="C"
        ),  # a copy: the kernels' signatures are for writable arrays
        parameters=parameters(problem.loss, dtype),
        scale=float(getattr(problem.loss, "reduction", "mean") == "sum"),
        lowest=[*trained[: problem.depth], True].index(True),
    )


def buffers_of(problem: Any, dtype: str) -> Buffers:
    """Room for one forward and backward pass over all samples."""
    K, N = problem.classes, problem.samples
    length = (sum(problem.widths) + K) * N
    X, D = np.zeros(length, dtype), np.zeros(length, dtype)
    hidden = max(problem.widths[1:], default=0) * N
    return Buffers(
        X=X,
        D=D,
        Z=X[-K * N :].reshape(K, N),
        R=D[-K * N :].reshape(K, N),
        work=np.zeros(3 * N, dtype),
        bounds=Bounds(np.zeros(3 * (problem.depth + 1) + 2 * N), np.zeros(hidden, dtype)),
        columns=np.arange(N),
    )


def per_coordinate(problem: Any, rates: Any, dtype: str) -> np.ndarray:
    """Rates by block name, repeated for every coordinate of the trained blocks."""
    parts = [np.full(int(np.prod(problem.shapes[name])), rates[name]) for name in problem.trained]
    return np.concatenate(parts).astype(dtype)


def step_of(problem: Any, optimizer: Any, decay: Any, dtype: str) -> Step:
    """The optimizer and the decay as kernels see them."""
    coupled, decoupled = per_block(decay, problem)
    shapes = {name: (*problem.shapes[name], 1)[:2] for name in problem.trained}
    return Step(
        hyper=np.array(optimizer.hyper() or (0.0,), dtype),
        coupled=per_coordinate(problem, coupled, dtype),
        decoupled=per_coordinate(problem, decoupled, dtype),
        has_coupled=int(any(coupled.values())),
        has_decoupled=int(any(decoupled.values())),
        shrink_after=int(shrinks_after(decay)),
        scale_free=int(optimizer.scale_free),
        elementwise=int(optimizer.elementwise),
        table=np.array([(problem.offsets[name], *shapes[name]) for name in problem.trained], np.int64),
    )
