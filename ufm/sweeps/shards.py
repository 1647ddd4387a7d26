"""Shards: cells that are integrated together by one worker, and the function that a worker calls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata

import numpy as np

from ufm.environment import version
from ufm.errors import IncompatibleError
from ufm.kernels.cache import stamp
from ufm.record import planned_steps
from ufm.run import Run
from ufm.sweeps.grid import Grid
from ufm.sweeps.measures import Kept
from ufm.threads import one_blas_thread

LANES = 16  # runs that the ensemble integrates side by side
MOST_CELLS = 1024
STATE_BYTES = 2**27  # recorded states that one worker holds at a time
# by the rough count below; long for `ufm.sweeps.scaling`, short for a dead worker and for Ctrl-C
SECONDS = 20.0
OPERATIONS_PER_SECOND = 1e10
# into how many shards a group falls if it is large enough, so that workers end at about the same time
PIECES = 32

_LIBRARIES = ("numpy", "scipy")

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Shard:
    """Some cells of a grid and what is kept of their runs: all that a worker is sent.

    Parameters
    ----------
    grid : Grid
        The whole sweep.
    cells : ndarray of int, shape (cells,)
        Cells whose runs can be integrated together.
    kept : Kept
        What is kept of them.
    software : mapping of str to str
        What the sweep was planned with; a worker with other sources or libraries would give other bits.
    """

    grid: Grid
    cells: np.ndarray
    kept: Kept
    software: Mapping[str, str]

    @property
    def first(self) -> Run:
        """One of the runs, as an example."""
        return self.grid.runs(self.cells[:1])[0]

    @property
    def runs(self) -> list[Run]:
        """All runs, built anew."""
        return self.grid.runs(self.cells)

    @property
    def records(self) -> int:
        """Number of records of each run."""
        return len(recorded(self.first))


def recorded(run: Run) -> np.ndarray:
    """Steps that a run records if it takes all of its steps."""
    assert run.steps is not None
    return planned_steps(run.record, run.steps)


@lru_cache(maxsize=1)
def software() -> Mapping[str, str]:
    """What decides the bits of a result besides its description: sources, what compiles them, and libraries."""
    return {
        "ufm": version(),
        "sources and numba": stamp(),
        **{name: metadata.version(name) for name in _LIBRARIES},
    }


def shards(grid: Grid, kept: Kept) -> list[Shard]:
    """Split a grid; the same grid gives the same shards, whatever computes them.

    Examples
    --------
    >>> import ufm
    >>> grid = Grid.of(dict(problem=ufm.UFM(3, 4), optimizer=ufm.GD, lr=[0.1, 0.2], decay=None, init=ufm.Gaussian(),
    ...                     steps=5, seed=range(40), record=ufm.Every(1), batch=None, dtype="float64"))
    >>> [len(shard.cells) for shard in shards(grid, Kept((), ()))]
    [16, 16, 16, 16, 16]
    """
    found = []
    for cells in grid.groups():
        size = shard_size(grid.runs(cells[:1])[0], len(cells))
        found += [
            Shard(grid, cells[start : start + size], kept, software()) for start in range(0, len(cells), size)
        ]
    return found


def shard_size(run: Run, cells: int) -> int:
    """Cells of a shard: bounded in memory and time, whole ensembles where possible, and enough shards to share."""
    bytes_per_run: int = 8 * run.problem.size * len(recorded(run))
    largest = min(MOST_CELLS, STATE_BYTES // max(1, bytes_per_run), int(SECONDS / max(seconds(run), 1e-12)))
    if largest <= LANES:
        return max(1, largest)
    share = -(-cells // PIECES)
    return min(-(-share // LANES) * LANES, largest // LANES * LANES)


def seconds(run: Run) -> float:
    """Rough time of a run from its matrix products alone."""
    return (run.steps or 0) * run.operations / OPERATIONS_PER_SECOND


def compute(shard: Shard) -> Arrays:
    """Integrate the runs of a shard and keep what it asks for; what an executor calls in its workers.

    Parameters
    ----------
    shard : Shard
        The cells.

    Returns
    -------
    dict of str to ndarray, shapes (cells, ...)
        See `Kept.empty`; equal to the bit on one machine, wherever and with whatever else it is computed.

    Raises
    ------
    IncompatibleError
        If this process has other sources or libraries than the one that planned the sweep.
    UfmError
        For a run or a metric that is not allowed.
    """
    from ufm.ensemble import ensemble

    here = software()
    for name, planned in shard.software.items():
        if here.get(name) != planned:
            raise IncompatibleError(f"a worker has {name} {here.get(name)}; allowed: {planned}, as here.")
    with one_blas_thread:
        trajectories = ensemble(shard.runs, workers=1)
        arrays = shard.kept.empty(len(trajectories), shard.records)
        shard.kept.put(arrays, trajectories)
        return arrays
