"""What the figures of the grid claim of its runs, on the quick grid."""

import re

import numpy as np
import pytest

from figures import momentum_decay_maps, nc0_grid
from figures._grid import paper_grid


@pytest.fixture(scope="module")
def grid():
    return paper_grid(True)


def test_every_run_of_sgd_obeys_its_law_and_no_decay_wrong_by_a_millionth(grid):
    sgd, others = (grid.isel(optimizer=(grid["base"].values == "SGD") == which) for which in (True, False))
    assert int(sgd["holds"].sum()) == sgd["holds"].size == 48
    assert float(sgd["ratio"].max()) < 0.5
    assert float(sgd["control"].min()) > 1000
    for name in ("ratio", "control", "law"):
        assert (others[name].values < 0).all()
    text = nc0_grid.compute(True).attrs["caption"]
    assert "asked of 48 runs; it holds at all records of 48, fails in 0 and is inconclusive in 0" in text


def test_coupled_decay_ends_lower_in_every_pair_of_runs(grid):
    text = nc0_grid.compute(True).attrs["caption"]
    for base in ("Adam", "Signum"):
        factor, above, pairs = re.search(rf"{base} (\S+) \(above 1 in (\d+) of (\d+) pairs\)", text).groups()
        coupled = grid["nc0"].sel(optimizer=base).isel(level=-1)  # decay 0.05, the one that both have
        decoupled = grid["nc0"].sel(optimizer=f"{base}W").isel(level=1)
        assert float(grid["decay"].sel(optimizer=base)[-1]) == float(
            grid["decay"].sel(optimizer=f"{base}W")[1]
        )
        ratio = decoupled.values / np.maximum(coupled.values, nc0_grid.FLOOR)
        assert float(factor) == pytest.approx(np.median(ratio), rel=0.06)
        assert int(above) == int(pairs) == (ratio > 1).sum() == ratio.size


def test_coupled_signs_rise_before_they_fall(grid):
    sign = grid.sel(optimizer="Signum", momentum=0.0)
    assert ((sign["nc0_peak"] > 2 * sign["nc0_start"]) & (sign["nc0"] < 0.01 * sign["nc0_peak"])).sum() == 4
    assert "4 of 12 runs rise above twice" in nc0_grid.compute(True).attrs["caption"]


def test_maps_count_runs_above_the_floor():
    text = momentum_decay_maps.compute(True).attrs["caption"]
    judged, of = map(int, re.search(r"\((\d+) of (\d+) runs\)", text).groups())
    assert 0 < judged <= of
    assert float(re.search(r"are off by at most (\S+) of what round-off may cause", text)[1]) < 0.5
