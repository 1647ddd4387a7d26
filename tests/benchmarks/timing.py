"""Interleaved repeats: every system runs once in each round, so that all share what else the machine does."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

import numpy as np

PAUSE = 0.05  # seconds until the threads of the system before have stopped waiting for work


def timed(run: Callable[[int], Any], steps: int) -> tuple[float, float]:
    """Wall time and CPU time of all threads, in microseconds per step."""
    time.sleep(PAUSE)
    wall, cpu = time.perf_counter(), time.process_time()
    run(steps)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return wall / steps * 1e6, cpu / steps * 1e6


def steps_for(run: Callable[[int], Any], seconds: float, least: int) -> int:
    """Number of steps, at least `least`, that takes about `seconds` besides what a call costs without steps."""
    run(least)
    few = timed(run, least)[1] * least
    if few >= 20e6 * seconds:
        return least
    more = 9 * least
    run(more)
    per_step = (min(timed(run, more)[1] for _ in range(2)) * more - few) / (more - least)
    return int(np.clip(1e6 * seconds / max(per_step, 0.02 * few / least), least, 2_000_000))


def interleaved(
    systems: Mapping[str, Callable[[int], Any]], seconds: float, repeats: int, least: int
) -> dict[str, dict[str, Any]]:
    """Times of every system: `steps`, and `wall` and `cpu` with a number for each repeat."""
    steps = {name: steps_for(run, seconds, least) for name, run in systems.items()}
    for name, run in systems.items():
        run(steps[name])  # compiled for this number
    found: dict[str, dict[str, Any]] = {
        name: {"steps": n, "wall": [], "cpu": []} for name, n in steps.items()
    }
    for _ in range(repeats):
        for name, run in systems.items():
            wall, cpu = timed(run, steps[name])
            found[name]["wall"].append(wall)
            found[name]["cpu"].append(cpu)
    return found


def ratio(others: list[float], own: list[float]) -> float:
    """Median of how many times our time another needed in the same round."""
    return median(other / mine for other, mine in zip(others, own, strict=True))
