"""Seconds in new processes: to the first result, and to compile or load the kernels of a case."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from .cases import CASES, Case

ROOT = Path(__file__).resolve().parents[2]
FIRST = "import ufm; ufm.simulate(ufm.UFM(10, 10), ufm.Momentum(0.1, 0.9), ufm.Coupled(1e-3), steps=100)"
KERNELS = """
import time
from tests.benchmarks.cases import CASES
from tests.benchmarks.systems import ours
from ufm.kernels import contract
case = CASES[{name!r}]
call, times = ours(case.alone(0) if {alone} else case), [time.process_time()]
for _ in range(2):
    call(2)
    times.append(time.process_time())
print(2 * times[1] - times[0] - times[2])
"""


def process(code: str, folder: str) -> tuple[float, str]:
    """Wall time of one process with its kernels in `folder`, and what it printed."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "UFM_CACHE_DIR": folder}
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True
    )
    return time.perf_counter() - begin, done.stdout


def first_results(repeats: int) -> dict[str, float]:
    """Medians of whole processes."""
    rows: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as warm:
        process(FIRST, warm)
        for i in range(repeats):
            for name, code in (("python", "pass"), ("import numpy",) * 2, ("import ufm",) * 2):
                rows.setdefault(name, []).append(process(code, warm)[0])
            rows.setdefault("first simulate, warm", []).append(process(FIRST, warm)[0])
            rows.setdefault("first simulate, cold", []).append(process(FIRST, str(Path(warm) / f"{i}"))[0])
    return {name: median(values) for name, values in rows.items()}


def _kernels(case: Case) -> tuple[Any, ...]:
    return case.rule, case.runs > 1, case.problem.depth > 1


def compile_times(names: Sequence[str]) -> dict[str, dict[str, float]]:
    """CPU seconds of a first call beyond a second, which compiles or loads kernels; once for cases that share them.

    "one run" compiles the kernels of one of the runs alone; "ensemble" then compiles, in a process of its own, what
    the ensemble needs beside them; "warm" has them all; "whole" is the ensemble that has none.
    """
    found: dict[str, dict[str, float]] = {}
    known = set()
    for name in names:
        kernels = _kernels(CASES[name])
        if kernels in known:
            continue
        known.add(kernels)
        with tempfile.TemporaryDirectory() as folder:

            def cpu(cache, alone, name=name, folder=folder):
                return float(process(KERNELS.format(name=name, alone=alone), str(Path(folder) / cache))[1])

            found[name] = {"one run": cpu("shared", True)}
            if CASES[name].runs > 1:
                found[name] |= {"ensemble": cpu("shared", False), "whole": cpu("own", False)}
            found[name]["warm"] = cpu("shared", False)
    return found
