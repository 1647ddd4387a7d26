"""Seconds from a bare interpreter to the first result, in new processes, medians of five.

python -m tests.benchmarks.start_up
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

REPEATS = 5
ROOT = Path(__file__).resolve().parents[2]
FIRST = "import ufm; ufm.simulate(ufm.UFM(10, 10), ufm.Momentum(0.1, 0.9), ufm.Coupled(1e-3), steps=100)"


def seconds(code: str, folder: str) -> float:
    """Wall time of one process."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "UFM_CACHE_DIR": folder}
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    return time.perf_counter() - begin


def main() -> None:
    with tempfile.TemporaryDirectory() as warm:
        seconds(FIRST, warm)
        rows: dict[str, list[float]] = {}
        for i in range(REPEATS):
            rows.setdefault("python", []).append(seconds("pass", warm))
            rows.setdefault("import numpy", []).append(seconds("import numpy", warm))
            rows.setdefault("import ufm", []).append(seconds("import ufm", warm))
            rows.setdefault("import numba", []).append(seconds("import numba", warm))
            rows.setdefault("first simulate, warm", []).append(seconds(FIRST, warm))
            cold = Path(warm) / f"cold{i}"
            rows.setdefault("first simulate, cold", []).append(seconds(FIRST, str(cold)))
    bare = median(rows["python"])
    for name, values in rows.items():
        print(f"{name:22s} {median(values):6.3f} s, over bare python {median(values) - bare:6.3f} s")


if __name__ == "__main__":
    main()
