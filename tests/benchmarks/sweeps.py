"""Sweeps on several workers: same bits, overhead, what a shard costs besides its runs, and memory of many cells.

    python -m tests.benchmarks.sweeps [--parts NAME ...] [--seeds 2] [--steps 1000] [--out FOLDER]

executors  a slice of the grid of the figures on threads, processes and a Dask LocalCluster, one worker and two: wall
           time and bits
costs      the constants of `ufm.sweeps.scaling`: seconds of a worker for each shard, of the process that hands out
           shards for each of them and for each byte, and until a new worker can compute
slots      that model against a thousand workers that sleep instead of computing and then send results of true size
cells      time and peak memory of the calling process for numbers of small runs, each in a process of its own, and
           the line through them

Dask is left out where it is not installed: `pip install .[cluster]`. FOLDER gets sweeps.json and sweeps.md.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import pickle
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import xarray

import ufm
from figures import _grid as grid
from ufm.environment import usable_cores
from ufm.sweeps import Plan, plan, planning
from ufm.sweeps.measures import CHEAP, Kept, measures
from ufm.sweeps.scaling import Costs
from ufm.sweeps.shards import SECONDS, Arrays, Shard, compute

from .start_up import ROOT
from .tables import table

PARTS = ("executors", "costs", "slots", "cells")
CORES = 1000  # of the cluster that the model is asked about
SHARE = 0.05  # of overhead that is allowed there
ALL_CELLS = 10**6
SERVED = 200  # shards of no length, for the seconds to hand one out


def plans(seeds: int, steps: int) -> list[Plan]:
    """The grid of the figures, a plan for each family of runs."""
    size = grid.FULL._replace(seeds=seeds, steps=steps)
    return [grid.plan_of(family, size) for family in grid.FAMILIES]


class System(NamedTuple):
    """Where a sweep runs: its arguments, and CPU seconds so far of all that work for it, nan where nobody can say."""

    arguments: dict[str, Any]
    cpu: Callable[[], float]


@contextmanager
def own_threads(workers: int) -> Iterator[System]:
    """Threads of this process."""
    yield System({"workers": workers}, time.process_time)


@contextmanager
def processes(workers: int) -> Iterator[System]:
    """New processes."""
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        yield System({"executor": pool}, lambda: float("nan"))


@contextmanager
def dask(workers: int, threads: int = 1) -> Iterator[System]:
    """A Dask cluster of new processes of this machine, its scheduler in this process."""
    from distributed import Client, LocalCluster

    logging.getLogger("distributed").setLevel(logging.ERROR)
    with (
        warnings.catch_warnings(),
        LocalCluster(n_workers=workers, threads_per_worker=threads, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):

        def cpu() -> float:
            return time.process_time() + sum(client.run(time.process_time).values())

        yield System({"executor": client.get_executor(pure=False)}, cpu)


SYSTEMS: dict[str, Callable[[int], Any]] = {"threads": own_threads, "processes": processes, "Dask": dask}


def installed(name: str) -> bool:
    """Whether a system is there."""
    try:
        if name == "Dask":
            import distributed  # noqa: F401
    except ImportError:
        return False
    return True


def same_bits(a: xarray.Dataset, b: xarray.Dataset) -> bool:
    """Whether all variables have the same bytes."""
    return set(a) == set(b) and all(a[name].values.tobytes() == b[name].values.tobytes() for name in a)


def on_executors(
    seeds: int, steps: int, rounds: int, systems: Sequence[str], workers: Sequence[int]
) -> list[dict[str, Any]]:
    """Wall and CPU seconds of every plan of the slice, kernels loaded, for each system and number of workers.

    All of them are started at first and take a plan in turn, so that they share what else the machine does.
    """
    todo = plans(seeds, steps)
    warm_up = plans(1, steps // 4)  # not fewer: late steps of sign methods have kernels of their own
    rows = [
        {"system": name, "workers": n, "same bits": True}
        for name in systems
        if installed(name)
        for n in workers
    ]
    with ExitStack() as stack:
        places = [stack.enter_context(SYSTEMS[row["system"]](row["workers"])) for row in rows]
        for row, place in zip(rows, places, strict=True):
            row["wall"], row["cpu"] = np.zeros((2, rounds, len(todo)))
            for small in warm_up:
                small.run(**place.arguments)
        for at in np.ndindex(rounds, len(todo)):
            reference = None
            for row, place in zip(rows, places, strict=True):
                wall, cpu = time.perf_counter(), place.cpu()
                found = todo[at[1]].run(**place.arguments)
                row["wall"][at], row["cpu"][at] = time.perf_counter() - wall, place.cpu() - cpu
                reference = found if reference is None else reference
                row["same bits"] = row["same bits"] and same_bits(reference, found)
            walls = ", ".join(f"{row['system']} {row['workers']} {row['wall'][at]:.1f} s" for row in rows)
            print(f"{grid.FAMILIES[at[1]].name}: {walls}", flush=True)
    return [{**row, "wall": row["wall"].tolist(), "cpu": row["cpu"].tolist()} for row in rows]


def executors_text(rows: Sequence[dict[str, Any]], runs: int, shards: int) -> str:
    """Table of `on_executors`: of every plan the shortest time of all rounds."""
    wall = {(row["system"], row["workers"]): sum(np.min(row["wall"], axis=0)) for row in rows}
    lines = []
    for row in rows:
        system, workers = row["system"], row["workers"]
        own, cpu = wall[system, workers], sum(np.min(row["cpu"], axis=0))
        threads, alone = wall.get(("threads", workers)), wall.get((system, 1))
        lines.append([
            system, str(workers), f"{own:.1f} s", f"{cpu:.1f} s" if np.isfinite(cpu) else "",
            f"{own / threads - 1:+.0%}" if threads else "", f"{alone / own / workers:.0%}" if alone else "",
            "" if len(rows) == 1 else "yes" if row["same bits"] else "NO",
        ])  # fmt: skip
    head = ["system", "workers", "wall", "CPU", "wall over threads", "efficiency", "same bits"]
    return f"{runs} runs in {shards} shards:\n\n" + table(head, lines)


def asleep(shard: Shard, seconds: float) -> Arrays:
    """Stands for the computing of a shard: as long, and as large a result."""
    time.sleep(seconds)
    return shard.kept.empty(len(shard.cells), shard.records)


class Asleep(Executor):
    """Hands `asleep` to an executor in place of what it is given."""

    def __init__(self, executor: Executor, seconds: float) -> None:
        self.executor, self.seconds = executor, seconds

    def submit(self, function: Any, /, *arguments: Any, **_: Any) -> Future[Any]:
        """Submit a shard."""
        return self.executor.submit(asleep, *arguments, self.seconds)


def of_shards(shards: int, metrics: Sequence[str] = grid.METRICS) -> Plan:
    """A plan with this many shards of runs of the figures' grid."""
    family = grid.FAMILIES[2]
    runs_per_seed = len(family.rates) * len(family.decays) * len(grid.FULL.momenta)
    most = max(len(shard.cells) for shard in grid.plan_of(family, grid.FULL._replace(seeds=60)).shards)
    size = grid.FULL._replace(seeds=-(-shards * most // runs_per_seed))
    planned = Plan(grid.plan_of(family, size).grid, Kept(measures(metrics), ()))
    planned.__dict__["shards"] = planned.shards[:shards]
    return planned


def bytes_of(shard: Shard) -> int:
    """Bytes that go through the process that hands out shards: description and results."""
    return len(pickle.dumps(shard)) + len(pickle.dumps(asleep(shard, 0.0)))


def served(planned: Plan, executor: Executor, seconds: float = 0.0) -> float:
    """Wall seconds of a sweep whose workers sleep and whose results go to a folder."""
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(planning, "IN_MEMORY", 0):
        begin = time.perf_counter()
        planned.run(executor=Asleep(executor, seconds), out=folder)
        return time.perf_counter() - begin


def costs() -> dict[str, Any]:
    """Constants of the model, with Dask where it is there and otherwise with processes."""
    name = "Dask" if installed("Dask") else "processes"
    small, large = of_shards(SERVED, ["nc0"]), of_shards(SERVED, CHEAP)
    few, many = (bytes_of(planned.shards[0]) for planned in (small, large))
    with dask(2, 8) if name == "Dask" else processes(2) as where:  # more hands than one process can keep busy
        served(small, where.arguments["executor"])  # connections and modules
        times = [
            [served(planned, where.arguments["executor"]) for planned in (small, large)] for _ in range(3)
        ]
    cheap, dear = (median(column) / SERVED for column in zip(*times, strict=True))
    byte = max(0.0, (dear - cheap) / (many - few))
    starts = []
    first = plan(ufm.UFM(3, 4), ufm.GD(0.1), steps=2)
    for _ in range(3):
        begin = time.perf_counter()
        with SYSTEMS[name](1) as where:
            first.run(**where.arguments)
            starts.append(time.perf_counter() - begin)
    found = Costs(
        worker=of_worker(), task=cheap - byte * few, byte=byte, start=median(starts),
        bytes=bytes_of(max(plans(6, 10_000)[2].shards, key=lambda shard: len(shard.cells))),
    )  # fmt: skip
    return {"system": name, **vars(found)}


def of_worker() -> float:
    """Seconds of a worker for a shard of one run of no length."""
    times = []
    for family in grid.FAMILIES[2:]:
        shard = grid.plan_of(family, grid.FULL._replace(seeds=1, steps=0)).shards[0]
        packed = pickle.dumps(Shard(shard.grid, shard.cells[:1], shard.kept, shard.software))
        compute(pickle.loads(packed))
        for _ in range(5):
            begin = time.perf_counter()
            pickle.dumps(compute(pickle.loads(packed)))
            times.append(time.perf_counter() - begin)
    return median(times)


def costs_text(model: Costs, system: str) -> str:
    """The constants and what follows for a thousand cores."""
    shortest = model.shortest_shard(CORES, SHARE)
    rows = [
        ["f, a worker's seconds per shard", f"{1e3 * model.worker:.1f} ms"],
        ["seconds per shard to hand it out", f"{1e3 * model.task:.2f} ms"],
        ["and for its bytes", f"{1e3 * model.byte * model.bytes:.2f} ms for {model.bytes / 2**10:.0f} KiB"],
        ["w, until a new worker can compute", f"{model.start:.1f} s"],
        [f"shortest shards for {SHARE:.0%} on {CORES:,} cores", f"{shortest:.1f} s"],
        [f"shards of {SECONDS:g} s there: per shard", f"{model.per_shard(SECONDS, CORES):.2%}"],
        ["load of the process that hands them out", f"{model.load(SECONDS, CORES):.0%}"],
        ["begin and end of a sweep", f"{model.once(SECONDS, CORES):.1f} s"],
        [f"shortest sweep for {SHARE:.0%}", f"{model.shortest_sweep(SECONDS, CORES, SHARE) / 60:.1f} min"],
    ]
    return f"Costs of a sweep besides its runs ({system}):\n\n" + table(["what", "measured"], rows)


def on_slots(slots: int, seconds: float, rounds: int, model: Costs | None) -> dict[str, Any]:
    """Wall time of shards that sleep on two processes with many threads, some for each slot, and what is predicted."""
    planned = of_shards(slots * rounds)
    with dask(2, slots // 2) as where:
        served(of_shards(slots), where.arguments["executor"])  # connections and threads
        wall = served(planned, where.arguments["executor"], seconds)
    found = {
        "slots": slots,
        "seconds": seconds,
        "rounds": rounds,
        "wall": wall,
        "bytes": bytes_of(planned.shards[0]),
    }
    if model:  # all sleep equally long: nobody waits for a last shard
        found["predicted"] = rounds * seconds * (1 + model.per_shard(seconds, slots)) + slots * model.served
    return found


def slots_text(found: dict[str, Any]) -> str:
    """One sentence."""
    ideal = found["seconds"] * found["rounds"]
    model = f" (the model: {found['predicted']:.1f} s)" if "predicted" in found else ""
    return (
        f"{found['slots']:,} slots that sleep {found['seconds']:g} s for a shard and send {found['bytes'] >> 10} KiB: "
        f"{found['rounds']} shards each in {found['wall']:.1f} s{model} instead of {ideal:g} s."
    )


SMALL_CELLS = """
import json, sys, tempfile
from tests.benchmarks.sweeps import many_cells
print(json.dumps(many_cells(int(sys.argv[1]))))
"""


def many_cells(cells: int) -> dict[str, float]:
    """Peak memory and time of a sweep over small runs whose results stay in its folder, in this process."""
    begin, folder = time.perf_counter(), tempfile.TemporaryDirectory()
    planned = plan(
        ufm.UFM(4, 4), ufm.GD, decay=ufm.Coupled, lr=np.geomspace(1e-3, 1e-1, 10), steps=20,
        rate=np.geomspace(1e-4, 1e-1, 10), seed=range(cells // 100), record=ufm.LogSpaced(10),
    )  # fmt: skip
    with folder, mock.patch.object(planning, "IN_MEMORY", 0):
        data = planned.run(out=folder.name)
        run, cpu = time.perf_counter() - begin, time.process_time()
        swept = peak()
        assert np.isfinite(data["nc0"].isel(record=-1).values).all()
    return {
        "cells": cells, "shards": len(planned.shards), "seconds": run, "cpu": cpu,
        "sweep": swept, "read": peak(), "results": planned.layout.bytes,
    }  # fmt: skip


def peak() -> int:
    """Largest resident memory of this process so far, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def in_new_processes(numbers: Sequence[int]) -> list[dict[str, float]]:
    """`many_cells` for each number, in a process that has done nothing else."""

    def found(cells: int) -> dict[str, float]:
        command = [sys.executable, "-c", SMALL_CELLS, str(cells)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        return json.loads(done.stdout)

    found(100)  # compiles the kernels
    return [found(cells) for cells in numbers]


def cells_text(rows: Sequence[dict[str, float]]) -> str:
    """Table of the peaks and the line through those of the first and the last number of cells."""
    lines = [
        [
            f"{row['cells']:,}", f"{row['shards']:,}", f"{row['seconds']:.0f} s",
            f"{1e6 * row['cpu'] / row['cells']:.0f} us", *(f"{row[of] / 2**20:.0f} MiB" for of in ("sweep", "read")),
            f"{row['results'] / 2**20:.0f} MiB",
        ]
        for row in rows
    ]  # fmt: skip
    head = [
        "cells",
        "shards",
        "wall",
        "CPU per cell",
        "peak of the sweep",
        "and of reading a metric",
        "on disk",
    ]
    text = "Many small runs, results in a folder:\n\n" + table(head, lines)
    if len(rows) < 2:
        return text
    laws = []
    for of in ("sweep", "read"):
        slope = (rows[-1][of] - rows[0][of]) / (rows[-1]["cells"] - rows[0]["cells"])
        at_all = rows[-1][of] + slope * (ALL_CELLS - rows[-1]["cells"])
        laws.append(f"{slope:.0f} bytes for a cell more, {at_all / 2**30:.2f} GiB at {ALL_CELLS:,}")
    return f"{text}\n\nThe sweep: {laws[0]}; with reading: {laws[1]}."


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.sweeps", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what to measure")
    parser.add_argument("--seeds", type=int, default=2, help="of the grid's slice; the whole has 6")
    parser.add_argument("--steps", type=int, default=1000, help="of its runs; the whole has 10000")
    parser.add_argument("--systems", nargs="+", choices=list(SYSTEMS), default=list(SYSTEMS), help="to time")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="of each system")
    parser.add_argument("--rounds", type=int, default=1, help="how often all executors are timed")
    parser.add_argument("--slots", type=int, default=CORES, help="workers that sleep")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for how long they sleep")
    parser.add_argument("--shards", type=int, default=2, help="for each of them")
    parser.add_argument("--cells", type=int, nargs="+", default=[10**4, 10**5], help="numbers of small runs")
    parser.add_argument("--out", type=Path, default=Path("benchmarks"), help="folder of the results")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    options = _parsed(arguments)
    results: dict[str, Any] = {"environment": ufm.environment(), "cores": usable_cores()}
    texts = []
    options.out.mkdir(parents=True, exist_ok=True)

    def keep(part: str, found: Any, text: str) -> None:
        results[part] = {"load": os.getloadavg(), "measured": found}
        texts.append(text)
        (options.out / "sweeps.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        (options.out / "sweeps.md").write_text("\n\n".join(texts) + "\n", encoding="utf-8")
        print(f"\n{text}\n\nload {os.getloadavg()[0]:.1f}\n", flush=True)

    model = None
    if "executors" in options.parts:
        shards = [shard for one in plans(options.seeds, options.steps) for shard in one.shards]
        rows = on_executors(options.seeds, options.steps, options.rounds, options.systems, options.workers)
        keep("executors", rows, executors_text(rows, sum(len(s.cells) for s in shards), len(shards)))
    if "costs" in options.parts:
        measured = costs()
        model = Costs(**{name: value for name, value in measured.items() if name != "system"})
        keep("costs", measured, costs_text(model, measured["system"]))
    if "slots" in options.parts and installed("Dask"):
        found = on_slots(options.slots, options.seconds, options.shards, model)
        keep("slots", found, slots_text(found))
    if "cells" in options.parts:
        rows = in_new_processes(options.cells)
        keep("cells", rows, cells_text(rows))


if __name__ == "__main__":
    main()
