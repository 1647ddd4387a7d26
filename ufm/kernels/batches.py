"""The time loop over mini-batches; records are still taken over all samples."""

from __future__ import annotations

import numpy as np

from ufm.kernels.chain import backward, forward, gather, logits_offset, scatter
from ufm.kernels.contract import EXPONENTS, NOT_FINITE, allocates, helper
from ufm.kernels.loop import (
    AT,
    KEPT,
    WHY,
    add_decay,
    keep,
    note,
    scale_of,
    take_step,
    takes_signs,
)
from ufm.kernels.tiled_product import product


@helper
def record(value, chain, step, records, buffers, kept, theta, cursor):
    """Record with a forward pass over all samples."""
    forward(product, chain, theta, theta, chain.table[0, 0], buffers.X, chain.table[0, 2])
    return keep(value, chain, step, records, buffers, kept, theta, cursor)


@allocates
def run(
    head, value, update, watch, chain, step, records, buffers,
    theta, grad, m, v, unit, rates, batches, start, stop, cursor,
):  # fmt: skip
    """As `loop.run`; row t - start of `batches` holds the sorted samples of step t, filled up with -1."""
    K, N, size = chain.table[-1, 1], chain.table[0, 2], batches.shape[1]
    tail = N % size
    X, D, _, _, _, work, bounds, _ = buffers
    segments = np.empty(chain.segments.size, np.int64)
    signs = takes_signs(step)
    all_targets = np.empty(chain.targets.shape[0] * size, theta.dtype)
    kept = cursor[KEPT]
    for t in range(start, stop + 1):
        cursor[AT] = t
        if kept < records.when.size and records.when[kept] == t:
            kept = record(value, chain, step, records, buffers, kept, theta, cursor)
            if cursor[WHY] == NOT_FINITE:
                return
        if t == stop:
            return
        columns = batches[t - start]
        count = size if columns[size - 1] >= 0 else tail
        targets = all_targets[: chain.targets.shape[0] * count].reshape((chain.targets.shape[0], count))
        begin = logits_offset(chain, count)
        end = begin + K * count
        gather(chain, theta, columns, count, X, segments, targets)
        forward(product, chain, theta, X, 0, X, count)
        flag = head(
            X[begin:end].reshape((K, count)), segments, targets, chain.parameters,
            scale_of(chain, theta, count), D[begin:end].reshape((K, count)), work,
        )  # fmt: skip
        if flag == NOT_FINITE or (flag == EXPONENTS and step.scale_free == 1):
            cursor[WHY] = flag
            return
        backward(product, chain, theta, grad, X, 0, D, 0, X, D, count)
        if chain.trained[0] == 1:
            scatter(chain, D, columns, count, grad)
        add_decay(step, theta, grad)
        if signs:
            found = watch(chain, step, theta, grad, X, 0, X, D, columns, count, bounds, cursor)
            if not note(found, cursor):
                return
        take_step(update, step, theta, grad, m, v, rates, t - start, t + 1)
