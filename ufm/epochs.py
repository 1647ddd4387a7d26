"""Which samples a mini-batch holds: shuffled epochs, the smaller last batch kept."""

from __future__ import annotations

import numpy as np

from ufm.initial import block_rng
from ufm.run import Run

BATCH_PURPOSE = 1  # stream of random numbers that orders mini-batches
BLOCK_OF_EPOCHS = 2**16  # shuffled indices drawn at once


def batch_order(run: Run, start: int, stop: int) -> np.ndarray:
    """Sorted sample indices of the batches of steps start ... stop - 1, shape (steps, batch); -1 fills short ones.

    The order of an epoch depends on the seed and the number of the epoch alone.
    """
    if run.batch is None or not run.in_batches:
        return np.zeros((0, 0), np.int64)
    N, m = run.problem.samples, run.batch
    per_epoch = -(-N // m)
    epochs = max(1, BLOCK_OF_EPOCHS // N)
    steps = np.arange(start, max(stop, start + 1))
    found = np.empty((len(steps), m), np.int64)
    number = steps // per_epoch
    for block in np.unique(number // epochs):
        rng = block_rng(run.seed, BATCH_PURPOSE, int(block))
        order = rng.permuted(np.tile(np.arange(N), (epochs, 1)), axis=1)
        padded = np.full((epochs, per_epoch * m), N)
        padded[:, :N] = order
        batches = np.sort(padded.reshape(epochs * per_epoch, m), axis=1)
        here = number // epochs == block
        found[here] = batches[steps[here] - block * epochs * per_epoch]
    found[found == N] = -1
    return found
