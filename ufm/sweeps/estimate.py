"""What a sweep would cost: cells, shards, bytes, and time from a timed probe."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ufm.errors import InterruptedRunError, UfmError
from ufm.record import LogSpaced
from ufm.run import Run
from ufm.sweeps.grid import Grid
from ufm.sweeps.shards import LANES, Shard, one_blas_thread, seconds

if TYPE_CHECKING:
    from ufm.sweeps.folder import Folder

PROBE_SECONDS = 0.5
MOST_PROBES = 8  # kinds of runs that are timed; others are taken in proportion to their matrix products


@dataclass(frozen=True)
class Estimate:
    """Size and time of a sweep; ``print`` shows one line each.

    Parameters
    ----------
    cells, shards, finished : int
        Runs, shards, and shards that the folder has already.
    bytes : int
        Size of what is kept, in memory or in the folder.
    worker_bytes : int
        Recorded states that a worker holds at a time.
    seconds : float
        Time of the shards that are not finished, on `workers` workers.
    workers : int
        Number of workers.
    """

    cells: int
    shards: int
    finished: int
    bytes: int
    worker_bytes: int
    seconds: float
    workers: int

    def __str__(self) -> str:
        rows = {
            "runs": f"{self.cells:,}",
            "shards": f"{self.shards:,}, {self.finished:,} of them finished",
            "results": f"{self.bytes / 2**20:,.1f} MiB",
            "states": f"{self.worker_bytes / 2**20:,.1f} MiB per worker",
            "time": f"{_duration(self.seconds)} on {self.workers} worker{'s' * (self.workers > 1)}",
        }
        return "\n".join(f"{name:8s} {text}" for name, text in rows.items())


def estimate(grid: Grid, shards: Sequence[Shard], folder: Folder | None, workers: int) -> Estimate:
    """Estimate from the shards of a grid; see `Estimate`."""
    left = [shard for shard in shards if folder is None or not folder.file(shard).exists()]
    one = {shard: shard.kept.empty(1, shard.records) for shard in shards}
    with one_blas_thread:
        time_left = _total(left)
    return Estimate(
        cells=grid.size,
        shards=len(shards),
        finished=len(shards) - len(left),
        bytes=sum(len(s.cells) * sum(array.nbytes for array in one[s].values()) for s in shards),
        worker_bytes=max(8 * len(s.cells) * s.records * s.first.problem.size for s in shards),
        seconds=time_left / min(workers, max(1, len(left))),
        workers=workers,
    )


def _total(shards: Sequence[Shard]) -> float:
    """Time of these shards one after the other: the largest kinds are timed, the others follow the rough count."""
    kinds: dict[object, list[Shard]] = {}
    for shard in shards:
        run = shard.first
        kinds.setdefault((run.problem, type(run.optimizer), run.steps), []).append(shard)
    by_size = sorted(
        kinds.values(), key=lambda kind: -sum(len(shard.cells) for shard in kind) * seconds(kind[0].first)
    )
    timed = counted = rest = 0.0
    for number, kind in enumerate(by_size):
        runs = sum(len(shard.cells) for shard in kind)
        rough = runs * seconds(kind[0].first)
        if number < MOST_PROBES:
            timed += runs * _time_of_run(kind[0])
            counted += rough
        else:
            rest += rough
    return timed + rest * (timed / counted if counted else 1.0)


def _time_of_run(shard: Shard) -> float:
    """Seconds of one run of a shard, its metrics included, from fewer steps of a few of its runs."""
    from ufm.ensemble import ensemble

    runs = shard.runs[:LANES]
    total = runs[0].steps or 0
    steps = min(total, 16)

    def short(steps: int) -> list[Run]:
        return [replace(run, steps=steps, record=LogSpaced(max(2, shard.records))) for run in runs]

    try:
        ensemble(short(steps), workers=1)  # whatever has to be compiled
        while True:
            begin = time.perf_counter()
            trajectories = ensemble(short(steps), workers=1)
            spent = time.perf_counter() - begin
            if steps >= total or spent > PROBE_SECONDS / 4:
                break
            steps = min(total, 4 * steps)
    except InterruptedRunError:
        raise
    except UfmError:
        return seconds(runs[0])  # a schedule that only fits the whole run
    arrays = shard.kept.empty(len(trajectories), len(trajectories[0]))
    shard.kept.put(arrays, trajectories[:1])  # once to warm up
    begin = time.perf_counter()
    shard.kept.put(arrays, trajectories)
    metrics = (time.perf_counter() - begin) * shard.records / len(trajectories[0])
    return (spent * total / max(1, steps) + metrics) / len(runs)


def _duration(value: float) -> str:
    if value < 100:
        return f"{value:.2g} s"
    return f"{value / 60:.1f} min" if value < 6000 else f"{value / 3600:.1f} h"
