"""The model of a sweep on many workers, and the command that measures its constants. No time is judged."""

import json
from concurrent.futures import ThreadPoolExecutor
from math import inf

import numpy as np
import pytest

import ufm
from tests.benchmarks import sweeps as benchmark
from ufm.sweeps.scaling import MEASURED, Costs
from ufm.sweeps.shards import SECONDS

COSTS = Costs(worker=0.01, task=2e-3, byte=1e-8, bytes=1e5, start=3.0)


def simulated(costs: Costs, shard: float, workers: int, shards: int) -> float:
    """Wall seconds of a sweep, shard after shard: workers ask one process, which serves them in turn.

    Shards are half as long to one and a half times as long as their mean.
    """
    rng = np.random.default_rng(0)
    free, served_until = np.full(workers, costs.start), 0.0
    for _ in range(shards):
        worker = int(free.argmin())
        served_until = max(served_until, free[worker]) + costs.served
        free[worker] = served_until + costs.worker + shard * rng.uniform(0.5, 1.5)
    return float(free.max())


@pytest.mark.parametrize(("shard", "workers"), [(20.0, 1000), (4.0, 1000), (5.0, 200)])
def test_the_model_bounds_a_simulation_of_the_queue_and_is_near_it(shard, workers):
    rounds = 12
    found = simulated(COSTS, shard, workers, rounds * workers) / (rounds * shard) - 1.0
    model = COSTS.overhead(shard, workers, rounds * workers * shard)
    assert 0.75 * model < found < model


def test_a_process_that_cannot_keep_up_has_no_finite_overhead():
    assert COSTS.per_shard(2.9, 1000) == COSTS.overhead(2.9, 1000, 1e9) == inf
    assert COSTS.shortest_sweep(2.9, 1000, 0.05) == inf
    assert simulated(COSTS, 1.0, 1000, 12_000) > 2.5 * 12


@pytest.mark.parametrize("workers", [1, 100, 1000])
@pytest.mark.parametrize("share", [0.01, 0.05])
def test_shortest_shards_and_sweeps_cost_what_is_allowed(workers, share):
    shard = COSTS.shortest_shard(workers, share)
    assert COSTS.per_shard(shard, workers) == pytest.approx(share)
    sweep = COSTS.shortest_sweep(2.0 * shard, workers, share)
    assert COSTS.overhead(2.0 * shard, workers, workers * sweep) == pytest.approx(share)


def test_the_length_of_shards_follows_the_model():
    assert MEASURED.load(SECONDS, 1000) < 0.8
    assert MEASURED.per_shard(SECONDS, 1000) < 0.05
    assert MEASURED.shortest_shard(1000, 0.05) < SECONDS
    assert MEASURED.shortest_sweep(SECONDS, 1000, 0.05) < 1800


def test_other_bits_are_noticed():
    data = ufm.sweep(ufm.UFM(3, 4), ufm.GD(0.1), steps=3, metrics=["loss"])
    other = data.copy(deep=True)
    assert benchmark.same_bits(data, other)
    other["loss"][-1] = np.nextafter(other["loss"][-1], 1.0)
    assert not benchmark.same_bits(data, other)
    assert not benchmark.same_bits(data, data.drop_vars("loss"))


def test_a_sweep_of_sleepers_has_results_of_true_size(tmp_path):
    planned = benchmark.of_shards(3)
    shard = planned.shards[0]
    with ThreadPoolExecutor(2) as pool:
        planned.run(executor=benchmark.Asleep(pool, 0.0), out=tmp_path)
        assert len(list(tmp_path.glob("*.npz"))) == len(planned.shards) == 3
    numbers = sum(array.size for array in shard.kept.empty(len(shard.cells), shard.records).values())
    assert benchmark.bytes_of(shard) > 4 * numbers


def test_the_law_of_memory_is_the_line_through_the_ends():
    rows = [
        {
            "cells": n,
            "shards": 1,
            "seconds": 1.0,
            "cpu": 1.0,
            "sweep": 2**28 + 1000 * n,
            "read": 2**28,
            "results": n,
        }
        for n in (10_000, 100_000)
    ]
    text = benchmark.cells_text(rows)
    assert "The sweep: 1000 bytes for a cell more, 1.18 GiB at 1,000,000; with reading: 0 bytes" in text


@pytest.mark.slow
def test_command(tmp_path, capsys, monkeypatch):
    few = ufm.sweeps.plan(ufm.UFM(3, 4), [ufm.GD, ufm.Adam], lr=[0.1, 0.2], seed=range(20), steps=20)
    monkeypatch.setattr(benchmark, "plans", lambda seeds, steps: [few])
    benchmark.main(["--parts", "executors", "cells", "--cells", "100", "200", "--out", str(tmp_path)])
    found = json.loads((tmp_path / "sweeps.json").read_text())
    assert all(row["same bits"] for row in found["executors"]["measured"])
    assert [row["cells"] for row in found["cells"]["measured"]] == [100, 200]
    assert (tmp_path / "sweeps.md").read_text().count("\n| ---") == 2
    assert "same bits" in capsys.readouterr().out
