"""What a sweep would cost: cells, shards, bytes, and time from timed probes with their uncertainty."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ufm.record import At
from ufm.run import Run
from ufm.schedules import Rates
from ufm.sweeps.grid import Grid
from ufm.sweeps.shards import LANES, Shard, recorded, seconds
from ufm.threads import one_blas_thread

if TYPE_CHECKING:
    from ufm.sweeps.folder import Folder
    from ufm.trajectory import Trajectory

FIRST_STEPS = 64  # of a probe; each has twice the steps of the one before
PROBE_SECONDS, MOST_PROBE_SECONDS = 2.0, 20.0  # for each kind of runs
PROBE_SHARE = 0.05  # of what a kind seems to cost: for as long as its probes may take between these two
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
    least, most : float
        How far that may be off: by twice the standard error of the mean over the runs that were timed, and, where not
        all of their steps were, by as much as if the cost of a step changed once more as it last did.
    probed : float
        Share of the steps of the timed runs that was taken, at least.
    workers : int
        Number of workers.
    """

    cells: int
    shards: int
    finished: int
    bytes: int
    worker_bytes: int
    seconds: float
    least: float
    most: float
    probed: float
    workers: int

    def __str__(self) -> str:
        rows = {
            "runs": f"{self.cells:,}",
            "shards": f"{self.shards:,}, {self.finished:,} of them finished",
            "results": f"{self.bytes / 2**20:,.1f} MiB",
            "states": f"{self.worker_bytes / 2**20:,.1f} MiB per worker",
            "time": f"{_duration(self.seconds)} on {self.workers} worker{'s' * (self.workers > 1)}, {self._range}",
        }
        return "\n".join(f"{name:8s} {text}" for name, text in rows.items())

    @property
    def _range(self) -> str:
        """How sure the time is."""
        text = f"{_duration(self.least)} to {_duration(self.most)} by a sample of the runs"
        if self.probed < 1.0:
            text += f" over the first {self.probed:.0%} of their steps; later ones may cost more"
        return text


def estimate(grid: Grid, shards: Sequence[Shard], folder: Folder | None, workers: int) -> Estimate:
    """Estimate from the shards of a grid; see `Estimate`."""
    left = [shard for shard in shards if folder is None or not folder.file(shard).exists()]
    one = {shard: shard.kept.empty(1, shard.records) for shard in shards}
    with one_blas_thread:
        total = _total(left)
    side_by_side = min(workers, max(1, len(left)))
    return Estimate(
        cells=grid.size,
        shards=len(shards),
        finished=len(shards) - len(left),
        bytes=sum(len(s.cells) * sum(array.nbytes for array in one[s].values()) for s in shards),
        worker_bytes=max(8 * len(s.cells) * s.records * s.first.problem.size for s in shards),
        seconds=total.seconds / side_by_side,
        least=total.least / side_by_side,
        most=total.most / side_by_side,
        probed=total.probed,
        workers=workers,
    )


@dataclass(frozen=True)
class _Time:
    """Seconds, between what they may lie, and the share of the steps that was timed for them."""

    seconds: float
    least: float
    most: float
    probed: float


def _total(shards: Sequence[Shard]) -> _Time:
    """Time of these shards one after the other: the largest kinds are timed, the others follow the rough count."""
    kinds: dict[object, list[Shard]] = {}
    for shard in shards:
        run = shard.first
        key = (run.problem, type(run.optimizer), run.optimizer.rule, run.steps, run.batch, run.dtype)
        kinds.setdefault(key, []).append(shard)

    def rough(kind: Sequence[Shard]) -> float:
        return sum(len(shard.cells) for shard in kind) * seconds(kind[0].first)

    by_size = sorted(kinds.values(), key=rough, reverse=True)
    timed, others = by_size[:MOST_PROBES], by_size[MOST_PROBES:]
    times = [_time_of(kind) for kind in timed]
    counted = sum(map(rough, timed))
    scale = 1.0 + sum(map(rough, others)) / counted if counted else 1.0
    return _Time(
        scale * sum(found.seconds for found in times),
        scale * sum(found.least for found in times),
        scale * sum(found.most for found in times),
        min((found.probed for found in times), default=1.0),
    )


def _time_of(kind: Sequence[Shard]) -> _Time:
    """Time of shards of one kind from some of their runs, with twice as many steps as long as time allows."""
    from ufm.ensemble import ensemble
    from ufm.kernels.contract import compile_seconds

    shard, runs = kind[0], _sample(kind)
    number, total = sum(len(one.cells) for one in kind), runs[0].steps or 0
    ensemble([_begin(run, min(total, FIRST_STEPS)) for run in runs], workers=1)  # whatever has to be compiled
    steps, spent, before, rate_before = min(total, FIRST_STEPS), 0.0, np.zeros(len(runs)), None
    taken = 0
    while True:
        begin, compiled = time.perf_counter(), compile_seconds["total"]
        trajectories = ensemble([_begin(run, steps) for run in runs], workers=1)
        wall = time.perf_counter() - begin - (compile_seconds["total"] - compiled)
        own = np.array([one.stats["seconds"] for one in trajectories])
        times = wall * own / own.sum() if own.sum() else np.full(len(runs), wall / len(runs))
        rate = (times - before) / max(1, steps - taken)  # of the steps that the probe before did not have
        rate *= [one.status.step >= steps for one in trajectories]  # a run that has ended costs no more
        whole = times + (total - steps) * rate
        spent += wall
        allowed = np.clip(PROBE_SHARE * number * whole.mean(), PROBE_SECONDS, MOST_PROBE_SECONDS)
        if steps >= total or spent + 2.0 * wall > allowed:
            break
        steps, taken, before, rate_before = min(total, 2 * steps), steps, times, rate
    error = 2.0 * whole.std() / np.sqrt(len(runs)) if len(runs) < number else 0.0
    if rate_before is not None:
        error += (total - steps) * abs(rate.mean() - rate_before.mean())
    metrics, mean = _time_of_metrics(shard, trajectories), whole.mean()
    least = max(times.mean(), mean - error)  # what the first steps took is certain
    expected, least, most = (float(number * (metrics + value)) for value in (mean, least, mean + error))
    return _Time(expected, least, most, steps / max(1, total))


def _sample(kind: Sequence[Shard]) -> list[Run]:
    """Runs from everywhere in shards of one kind: one at random from each of some equal parts."""
    cells = np.concatenate([shard.cells for shard in kind])
    parts = np.array_split(cells, min(LANES, len(cells)))
    rng = np.random.default_rng(0)
    return kind[0].grid.runs([rng.choice(part) for part in parts])


def _begin(run: Run, steps: int) -> Run:
    """The first steps of a run as a run, with its records among them."""
    lr, known = run.optimizer.lr, recorded(run)
    if not isinstance(lr, float) and steps:
        lr = Rates(run.rates[:steps])
    record = At(tuple(known[known <= steps].tolist()))
    return replace(run, steps=steps, record=record, optimizer=replace(run.optimizer, lr=lr))


def _time_of_metrics(shard: Shard, trajectories: Sequence[Trajectory]) -> float:
    """Seconds for what is kept of a run with all of its records."""
    records = max(map(len, trajectories))
    arrays = shard.kept.empty(len(trajectories), records)
    shard.kept.put(arrays, trajectories[:1])  # once to warm up
    begin = time.perf_counter()
    shard.kept.put(arrays, trajectories)
    return (time.perf_counter() - begin) * shard.records / records / len(trajectories)


def _duration(value: float) -> str:
    if value < 100:
        return f"{value:.2g} s"
    return f"{value / 60:.1f} min" if value < 6000 else f"{value / 3600:.1f} h"
