"""From the description objects to the tuples that kernels read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ufm.decay import per_block, shrinks_after
from ufm.kernels.contract import Bounds, Buffers, Chain, Records, Step
from ufm.kernels.lanes import aligned
from ufm.kernels.losses import parameters
from ufm.kernels.updates import hyper_of, in_lanes, row


def chain_of(problem: Any, dtype: str, lanes: int = 1) -> Chain:
    """The problem as kernels see it."""
    weights = ["H", *(f"W{layer}" for layer in range(1, problem.depth + 1))]
    table = np.array([(lanes * problem.offsets[name], *problem.shapes[name]) for name in weights], np.int64)
    trained = [name in problem.trained for name in weights] + ["b" in problem.trained]
    reached, loss = trained[: problem.depth], parameters(problem.loss, dtype)
    if problem.scales:
        # what only the passes of `ufm.kernels.normalisation` read
        scales = [problem.scales.get(layer) for layer in range(1, problem.depth + 2)]
        offsets = [-1 if name is None else problem.offsets[name] for name in scales]
        of_scales = [name in problem.trained for name in scales]
        table = np.column_stack([table, offsets, of_scales]).astype(np.int64)
        reached = [weight or scale for weight, scale in zip(reached, of_scales[:-1], strict=True)]
        loss = np.append(loss, loss.dtype.type(problem.normalisation.eps))
    targets = np.zeros((0, 0)) if problem.targets is None else problem.targets
    targets = np.array(targets, dtype, order="C")  # a copy: the kernels' signatures are for writable arrays
    segments = np.concatenate([[0], np.cumsum(problem.class_sizes)]).astype(np.int64)
    return Chain(
        lanes=lanes,
        table=table,
        trained=np.array(trained, np.int64),
        bias=lanes * problem.offsets["b"] if "b" in problem.offsets else -1,
        relu=int(problem.activation == "relu"),
        segments=segments,
        labels=np.repeat(np.arange(len(problem.class_sizes), dtype=np.int64), problem.class_sizes),
        targets=targets,
        spans=lanes * segments,
        goals=np.repeat(targets, lanes, axis=1),
        parameters=loss,
        scale=float(getattr(problem.loss, "reduction", "mean") == "sum"),
        lowest=[*reached, True].index(True),
    )


def buffers_of(problem: Any, dtype: str, lanes: int = 1) -> Buffers:
    """Room for one forward and backward pass over all samples."""
    K, N = problem.classes, problem.samples
    columns = N * lanes
    logits = sum(problem.widths) * columns
    length = logits + K * columns
    behind = sum(problem.widths[layer - 1] * (columns + 1) for layer in problem.scales)
    X, D = aligned(length + behind, dtype), aligned(length, dtype)
    hidden = max(problem.widths[1:], default=0) * N
    return Buffers(
        X=X,
        D=D,
        Z=X[logits:length].reshape(K, columns),
        R=D[logits:].reshape(K, columns),
        one=np.zeros((K, N), dtype),
        work=np.zeros(3 * columns, dtype),
        bounds=Bounds(np.zeros(3 * (problem.depth + 1) * lanes + 2 * N), np.zeros(hidden, dtype)),
        columns=np.arange(N),
    )


def per_coordinate(problem: Any, rates: Sequence[Any], dtype: str) -> np.ndarray:
    """Rates by block name of each lane, repeated for every number of the trained blocks."""
    parts = [
        np.tile([lane[name] for lane in rates], int(np.prod(problem.shapes[name])))
        for name in problem.trained
    ]
    return np.concatenate(parts).astype(dtype)


def step_of(problem: Any, optimizers: Sequence[Any], decays: Sequence[Any], dtype: str) -> Step:
    """The optimizer and the decay of one run, or of each lane, as kernels see them."""
    lanes, optimizer = len(optimizers), optimizers[0]
    pairs = [per_block(decay, problem) for decay in decays]
    coupled, decoupled = ([pair[kind] for pair in pairs] for kind in (0, 1))
    after = [shrinks_after(decay) for decay in decays]
    own = in_lanes(optimizer)
    # where signs are asked for, or exponents may be carried, the gradient has to hold the decay before the rule
    added = own and not optimizer.scale_free
    decay = [
        [
            [added * rates[name] for rates in coupled],
            [(not late) * rates[name] for rates, late in zip(decoupled, after, strict=True)],
            [late * rates[name] for rates, late in zip(decoupled, after, strict=True)],
        ]
        for name in problem.trained
    ]
    shapes = {name: (*problem.shapes[name], 1)[:2] for name in problem.trained}
    table = [
        (lanes * problem.offsets[name], lanes * shapes[name][0], shapes[name][1]) for name in problem.trained
    ]
    has_coupled = any(any(rates.values()) for rates in coupled)
    return Step(
        hyper=hyper_of(optimizers, dtype),
        decay=np.concatenate([row(rates, dtype) for block in decay for rates in block]),
        coupled=per_coordinate(problem, coupled, dtype),
        decoupled=per_coordinate(problem, decoupled, dtype),
        has_coupled=int(has_coupled),
        adds_coupled=int(has_coupled and not added),
        shrinks=int(not own and any(any(rates.values()) for rates in decoupled)),
        shrink_after=int(after[0]),
        scale_free=int(optimizer.scale_free),
        elementwise=int(optimizer.elementwise),
        buffers=optimizer.buffers,
        table=np.array(table, np.int64),
    )


def room_for_records(runs: int, when: np.ndarray, size: int, dtype: str) -> Records:
    """Room for the states and losses of some runs at the steps `when`."""
    shape = runs, len(when)
    return Records(when, np.empty((*shape, size), dtype), np.empty(shape), np.empty(shape))
