"""Interleaved repeats: every system runs once in each round, so that all share what else the machine does."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

import numpy as np

PAUSE = 0.05  # seconds until the threads of the system before have stopped waiting for work
LEAST, MOST = 4, 2_000_000  # steps
CALLS = 30  # how many times what a call costs without steps its steps take: a step's time is off by 1/30


def timed(run: Callable[[int], Any], steps: int) -> tuple[float, float]:
    """Wall time and CPU time of all threads, in microseconds per step."""
    time.sleep(PAUSE)
    wall, cpu = time.perf_counter(), time.process_time()
    run(steps)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return wall / steps * 1e6, cpu / steps * 1e6


def steps_for(run: Callable[[int], Any], seconds: float) -> int:
    """Number of steps that takes `seconds` of CPU time, and CALLS times what a call costs without steps."""
    run(1)
    call, steps = timed(run, 1)[1], LEAST
    wanted = max(1e6 * seconds, CALLS * call)
    while True:
        run(steps)
        spent = min(timed(run, steps)[1] for _ in range(2)) * steps - call  # one may have met something else
        if spent >= 0.1 * wanted or steps >= MOST:
            return int(np.clip(wanted * steps / max(spent, 1.0), LEAST, MOST))
        steps *= 16


def interleaved(
    systems: Mapping[str, Callable[[int], Any]], seconds: float, repeats: int
) -> dict[str, dict[str, Any]]:
    """Times of every system: `steps`, and `wall` and `cpu` with a number for each repeat."""
    steps = {name: steps_for(run, seconds) for name, run in systems.items()}
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
