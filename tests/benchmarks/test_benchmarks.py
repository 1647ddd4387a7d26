"""The command times what it says and writes what it found. No time is judged."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from . import tables
from .__main__ import AGREEMENT, prepared
from .cases import CASES, CHECK
from .curve import FAMILIES, draw_curve, measure_curve, worst_choice, write_curve
from .memory import RECORDS, STEPS, peak_of_a_run
from .start_up import ROOT
from .systems import PEERS, fastest, ours, with_numpy
from .timing import ratio


@pytest.mark.parametrize("name", CASES)
def test_the_step_written_by_hand_is_ours(name):
    """Of every peer but one; an error of a step's size is 10^8 times the bound."""
    case = replace(CASES[name], runs=min(CASES[name].runs, 3))
    with threadpool_limits(1):  # threads of BLAS that wait for one another are slow on a busy machine
        expected, found = ours(case)(CHECK), with_numpy(case)(CHECK)
    for block, start in case.starts.items():
        assert np.abs(found[block] - expected[block]).max() <= 1e-13
        assert np.abs(found[block] - start).max() > 1e-5


def test_a_peer_that_computes_something_else_stops_the_benchmark(monkeypatch):
    def beside(case):
        run = with_numpy(case)
        return lambda steps: {name: block + 2 * AGREEMENT for name, block in run(steps).items()}

    monkeypatch.setitem(PEERS, "numpy", beside)
    with pytest.raises(SystemExit, match=r"numpy differs from ours by 2\.00e-10 after 64 steps"):
        prepared(CASES["one-4"], ["numpy"])


def test_a_peer_that_is_not_installed_is_named(monkeypatch):
    def absent(case):
        raise ImportError("No module named 'jax'")

    monkeypatch.setitem(PEERS, "jax", absent)
    runners, missing = prepared(CASES["one-4"], ["jax"])
    assert list(runners) == ["ufm"]
    assert tables.left_out(2 * [{"missing": missing}]) == "jax is left out: No module named 'jax'"


def test_the_faster_number_of_threads_is_taken():
    waits = {1: 0.001, 2: 0.02}
    assert fastest((2, 1), lambda choice, steps: time.sleep(waits[choice]), times=2) == 1


def row(title="a case", **systems):
    times = {name: {"wall": wall, "cpu": wall} for name, wall in systems.items()}
    return {
        "title": title, "runs": 2, "goal": 3, "systems": times,
        "bounds": {"dgemm": {"wall": [1.0, 2.0], "cpu": [1.0, 1.0]}},
    }  # fmt: skip


def test_ratios_are_taken_within_rounds():
    """A slow round that slows both changes no ratio."""
    assert ratio([3.0, 60.0, 3.0], [1.0, 20.0, 1.0]) == 3
    assert tables.best(row(ufm=[1.0, 4.0], jax=[5.0, 20.0], numpy=[4.0, 16.0])) == ("numpy", 4.0)
    assert tables.share(row(ufm=[2.0, 4.0]), "dgemm") == 0.5
    assert tables.share(row(ufm=[2.0, 4.0]), "products") is None


def test_tables_are_markdown():
    rows = [row(ufm=[2.0, 2.0], numpy=[9.0, 9.0]), row("another case", ufm=[1.0, 1.0], jax=[2.0, 2.0])]
    for text in (tables.comparison(rows), tables.for_readme(rows)):
        lines = text.splitlines()
        assert len(lines) == 4
        assert len({line.count("|") for line in lines}) == 1
        assert len(set(map(len, lines))) == 1
    assert "4.50 x" in tables.comparison(rows).splitlines()[2]
    assert "| 1 us " in tables.for_readme(rows)  # two runs share two microseconds
    assert tables.for_readme(rows).splitlines()[3].split("|")[3].strip() == "2.0 x"


def test_the_worst_choice_is_the_one_reported():
    fair, wrong = (
        {"K": 4, "ensemble": 1.0, "lanes": 1.0, "BLAS": 3.0},
        {"K": 9, "ensemble": 3.0, "lanes": 2.0, "BLAS": 3.0},
    )
    assert worst_choice([fair, wrong]) == (1.5, 9)
    assert list(FAMILIES) == ["ensemble", "lanes", "BLAS"]


@pytest.mark.slow
def test_the_curve_is_measured_written_and_drawn(tmp_path):
    (row,) = rows = measure_curve((4,), 1e-4, 1)
    assert list(row) == ["K", "one run", "dgemm", "exp", *FAMILIES]
    write_curve(rows, tmp_path / "curve.csv")
    draw_curve(rows, tmp_path / "curve.png")
    assert (tmp_path / "curve.csv").read_text().splitlines()[0] == ",".join(row)
    assert (tmp_path / "curve.png").stat().st_size > 1000


@pytest.mark.slow
@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="the peak can be set back on Linux alone"
)
def test_records_are_all_that_a_long_run_keeps():
    found = peak_of_a_run()
    assert found["steps"] == STEPS
    assert found["records"] <= RECORDS * 8 * (800 + 3)
    assert found["peak above"] <= found["records"] + 2**20


def test_tables_of_compiling_name_what_is_missing():
    found = {
        "one": {"one run": 3.0, "warm": 0.2},
        "many": {"one run": 3, "ensemble": 2, "whole": 4, "warm": 0.3},
    }
    lines = tables.compiling(found, {"one": "a run", "many": "runs"}).splitlines()
    assert [cell.strip() for cell in lines[2].split("|")[1:-1]] == ["a run", "3.00 s", "", "", "0.20 s"]
    assert "2.00 s" in lines[3]


def test_command(tmp_path):
    arguments = [
        "--quick",
        "--cases",
        "one-4",
        "--peers",
        "numpy",
        "--parts",
        "cases",
        "--out",
        str(tmp_path),
    ]
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks", *arguments],
        cwd=ROOT, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert CASES["one-4"].title in done.stdout
    (case,) = json.loads((tmp_path / "results.json").read_text())["cases"]
    assert set(case["systems"]) == {"ufm", "numpy"}
    assert len(case["systems"]["ufm"]["wall"]) == 3
    assert tables.for_readme([case]) in (tmp_path / "tables.md").read_text()
