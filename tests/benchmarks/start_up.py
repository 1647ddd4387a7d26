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
begin = time.process_time()
ours(CASES[{name!r}])(2)
print(contract.compile_seconds["total"], time.process_time() - begin)
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
    """Seconds in which kernels are compiled (cold) and loaded (warm), once for cases that share all kernels.

    The CPU time is that of the first call altogether.
    """
    found: dict[str, dict[str, float]] = {}
    known = set()
    for name in names:
        kernels = _kernels(CASES[name])
        if kernels not in known:
            known.add(kernels)
            with tempfile.TemporaryDirectory() as folder:
                for kind in ("cold", "warm"):
                    wall, cpu = map(float, process(KERNELS.format(name=name), folder)[1].split())
                    found.setdefault(name, {}).update({kind: wall, f"{kind}, cpu": cpu})
    return found
