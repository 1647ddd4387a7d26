"""Times of a step against JAX, PyTorch and numpy and against the bounds of the processor.

    python -m tests.benchmarks [--quick] [--cases NAME ...] [--peers NAME ...] [--parts NAME ...] [--out FOLDER]

All systems take the same steps from the same starts and must agree to 1e-10 before anything is timed. Then they run
in turn; tables show medians of the ratios of wall and of CPU time of all threads, which says more on a machine that
does other things too. Cores are shared out from outside: `taskset -c 0 python -m ...` gives everybody one. FOLDER
gets results.json, tables.md (the first of them for the README), curve.csv and curve.png.
Peers that are not installed are left out: `pip install .[bench]`.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import ufm
from ufm.environment import usable_cores

from . import bounds, memory, start_up, tables
from .cases import CASES, CHECK, Case
from .curve import CURVE, draw_curve, measure_curve, worst_choice, write_curve
from .systems import PEERS, Runner, ours
from .timing import interleaved

AGREEMENT = 1e-10
PARTS = ("cases", "compile", "curve", "memory")


def prepared(case: Case, peers: Sequence[str]) -> tuple[dict[str, Runner], dict[str, str]]:
    """Systems that serve the case and agree with ours, and why others do not."""
    runners: dict[str, Runner] = {"ufm": ours(case)}
    missing: dict[str, str] = {}
    expected = runners["ufm"](CHECK)
    for name in peers:
        try:
            run = PEERS[name](case)
            found = run(CHECK)
        except ImportError as error:
            missing[name] = str(error)
            continue
        worst = max(float(np.abs(found[block] - expected[block]).max()) for block in expected)
        if not worst <= AGREEMENT:
            raise SystemExit(f"{name} differs from ours by {worst:.2e} after {CHECK} steps of {case.title}")
        runners[name] = run
    return runners, missing


def measured(case: Case, peers: Sequence[str], seconds: float, repeats: int) -> dict[str, Any]:
    """One row of the results."""
    runners, missing = prepared(case, peers)
    limits = {"dgemm": bounds.square_products}
    if case.runs == 1:
        limits["products"] = bounds.products_of(case)
    times = interleaved({**runners, **limits}, seconds, repeats)
    per_product = case.flops / (2 * bounds.SQUARE**3)
    for kind in ("wall", "cpu"):  # as long as the products of a step take at this rate
        times["dgemm"][kind] = [per_product * value for value in times["dgemm"][kind]]
    return {
        "name": case.name,
        "title": case.title,
        "runs": case.runs,
        "flops": case.flops,
        "goal": case.goal,
        "missing": missing,
        "systems": {name: times[name] for name in runners},
        "bounds": {name: times[name] for name in limits},
    }


def settings() -> dict[str, Any]:
    """Where and with what it was measured."""
    packages = {}
    for name in ("jax", "torch", "numpy"):
        try:
            packages[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            packages[name] = "not installed"
    load = os.getloadavg() if hasattr(os, "getloadavg") else None
    return {"environment": ufm.environment(), "peers": packages, "load": load, "cores": usable_cores()}


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="shorter pieces, three rounds, few sizes")
    parser.add_argument(
        "--cases", nargs="+", choices=CASES, default=list(CASES), metavar="NAME", help=", ".join(CASES)
    )
    parser.add_argument(
        "--peers", nargs="*", choices=PEERS, default=list(PEERS), metavar="NAME", help=", ".join(PEERS)
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what to measure")
    parser.add_argument("--out", type=Path, default=Path("benchmarks"), help="folder of the results")
    return parser.parse_args()


def write(results: dict[str, Any], folder: Path) -> None:
    """What is measured so far."""
    (folder / "results.json").write_text(json.dumps(results, indent=1, default=str) + "\n", encoding="utf-8")


def main() -> None:
    """Measure, print and write."""
    options = _parsed()
    begin = time.perf_counter()
    seconds, repeats = (0.05, 3) if options.quick else (0.2, 5)
    results = settings()
    print(f"{usable_cores()} cores, load {results['load']}, {results['peers']}", flush=True)
    texts = []
    options.out.mkdir(parents=True, exist_ok=True)
    if "cases" in options.parts:
        rows = results["cases"] = []
        for name in options.cases:
            row = measured(CASES[name], options.peers, seconds, repeats)
            rows.append(row)
            write(results, options.out)  # a run that is cut short leaves what it has
            print(f"{time.perf_counter() - begin:4.0f} s  {tables.line(row)}", flush=True)
        texts.append("For the README:\n\n" + tables.for_readme(rows))
        texts += [f"By {kind} time:\n\n" + tables.comparison(rows, kind) for kind in ("wall", "cpu")]
        texts += [tables.left_out(rows)] if tables.left_out(rows) else []
    if "compile" in options.parts:
        names = [row["name"] for row in results.get("cases", ())] or options.cases
        results["compile"] = start_up.compile_times(names)
        results["start_up"] = start_up.first_results(1 if options.quick else 3)
        texts.append(tables.compiling(results["compile"], {name: case.title for name, case in CASES.items()}))
        texts.append(tables.starting(results["start_up"]))
    if "memory" in options.parts:
        results["memory"] = memory.peak_of_a_run()
        texts.append(tables.memory(results["memory"]))
    if "curve" in options.parts:
        results["curve"] = measure_curve(CURVE[::4] if options.quick else CURVE, seconds / 2, repeats)
        write_curve(results["curve"], options.out / "curve.csv")
        draw_curve(results["curve"], options.out / "curve.png")
        worst, where = worst_choice(results["curve"])
        texts.append(tables.curve(results["curve"]))
        texts.append(
            f"The chosen family needs at most {worst:.2f} times the time of the other (K = {where})."
        )
    write(results, options.out)
    (options.out / "tables.md").write_text("\n\n".join(texts) + "\n", encoding="utf-8")
    print("\n" + "\n\n".join(texts))
    print(f"\n{time.perf_counter() - begin:.0f} s; written to {options.out}")


if __name__ == "__main__":
    main()
