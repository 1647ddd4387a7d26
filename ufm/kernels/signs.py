"""The signs that the loops take at one state, and which of them round-off cannot decide."""

from __future__ import annotations

from typing import Any

import numpy as np

from ufm.errors import invalid
from ufm.kernels import batches, contract, doubt, extended, loop, losses, updates
from ufm.kernels.layout import buffers_of, chain_of, step_of
from ufm.optimizers import SignGD


def signs(
    problem: Any, theta: np.ndarray, decay: Any, samples: np.ndarray, dtype: str
) -> tuple[np.ndarray, np.ndarray]:
    """Sign of the gradient with coupled decay and whether it is undecided, each of shape (problem.size,).

    One step of the very loops of a run, at learning rate 0: what they leave in `grad` and in the cursor's marks.
    """
    optimizer, size = SignGD(0.0), problem.size
    head, value = losses.pair(problem.loss, dtype)
    update, watch = updates.rule(optimizer, dtype), contract.compiled(doubt.count, "watch", dtype)
    chain, step = chain_of(problem, dtype), step_of(problem, [optimizer], [decay], dtype)
    theta, grad, rates = theta.astype(dtype), np.zeros(size, dtype), np.zeros(1, dtype)
    nothing = np.empty((1, 0))
    records = contract.Records(np.zeros(0, np.int64), np.empty((1, 0, size), dtype), nothing, nothing)
    some = len(samples) < problem.samples
    order = samples[None].astype(np.int64) if some else np.zeros((1, 0), np.int64)
    cursor = np.zeros(loop.MARKS + size, np.int64)

    def advance(run: Any, unit: np.ndarray) -> int:
        contract.compiled(run, "run", dtype)(
            head, value, update, watch, chain, step, records, buffers_of(problem, dtype), theta, grad,
            np.zeros(size, dtype), np.zeros(size, dtype), unit, rates, order, 0, 1, cursor,
        )  # fmt: skip
        return int(cursor[loop.WHY])

    why = advance(batches.run if some else loop.run, np.zeros(0))
    if why == contract.EXPONENTS:
        cursor[loop.WHY] = contract.FINE
        why = advance(extended.run, np.zeros(size))
    if why == contract.NOT_FINITE:
        raise invalid("state", "a state without finite logits", "states whose logits are finite")
    return np.nan_to_num(np.sign(grad)).astype(np.int8), cursor[loop.MARKS :] > 0
