"""Optimizers on the DUFM: all of them run, the row-sum law holds at every depth, fixed points; what compare reports."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

import figures
import ufm
from ufm.claims import registry
from ufm.compare import Ending, judge
from ufm.losses import MSE
from ufm.metrics import classify_solution
from ufm.solutions import dnc, low_rank, srg

LAW = "ufm.row_sum_law"
OPTIMIZERS = {
    "GD": ufm.GD(0.1),
    "momentum": ufm.Momentum(0.05, 0.5),
    "Nesterov": ufm.Momentum(0.05, 0.5, nesterov=True),
    "SignGD": ufm.SignGD(2e-3),
    "Signum": ufm.Signum(2e-3, 0.9),
    "Adam": ufm.Adam(2e-3),
}
LINEAR_IN_GRADIENTS = ("GD", "momentum", "Nesterov")
DECAYS = {"coupled": ufm.Coupled(0.02), "decoupled": ufm.Decoupled(0.02)}
DEPTHS = (2, 3, 4)
ACTIVATIONS = ("relu", "identity")


def small_run(optimizer, decay, loss: str, depth: int, activation: str, **options) -> ufm.Trajectory:
    problem = ufm.DUFM(4, 6, depth, per_class=2, activation=activation, loss=loss)
    options = {"steps": 200, "init": ufm.Gaussian(0.5), "record": ufm.LogSpaced(12), **options}
    return ufm.simulate(problem, optimizer, decay, **options)


# ------------------------------------------------------------------------------- every combination


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_row_sum_law_holds_at_every_depth_where_it_applies(name) -> None:
    """Cross-entropy and the SGD family alone; the other runs are told which hypothesis fails. All of them descend."""
    for kind, loss, depth, activation in product(DECAYS, ("ce", "mse"), DEPTHS, ACTIVATIONS):
        run = small_run(OPTIMIZERS[name], DECAYS[kind], loss, depth, activation)
        assert run.status.name == "completed"
        assert run.fit[-1] < run.fit[0], (kind, loss, depth, activation)
        row = judge(registry()[LAW], run.judged())
        if name in LINEAR_IN_GRADIENTS and loss == "ce":
            assert row.verdict == "holds", (kind, depth, activation, row.reason)
            assert row.control > 10
        else:
            assert row.verdict == "not applicable"
            assert ("shift-invariant" if loss == "mse" else "linear in the gradients") in row.reason


@pytest.mark.parametrize("depth", DEPTHS)
def test_theorems_of_coupled_and_decoupled_decay_hold_in_deep_chains(depth) -> None:
    for kind, applies, other in (
        ("coupled", "zhao2026.thm3.2", "zhao2026.thm3.1"),
        ("decoupled", "zhao2026.thm3.1", "zhao2026.thm3.2"),
    ):
        report = ufm.compare(small_run(OPTIMIZERS["momentum"], DECAYS[kind], "ce", depth, "relu"))
        assert report.ok
        assert report[applies].verdict == "holds"
        assert report[other].verdict == "not applicable"


def test_the_law_of_one_decay_is_refused_for_the_other() -> None:
    """Control: the same deep run under the other description."""
    run = small_run(OPTIMIZERS["momentum"], DECAYS["coupled"], "ce", 3, "relu")
    wrong = replace(run, run=replace(run.run, decay=DECAYS["decoupled"]))
    assert judge(registry()[LAW], wrong.judged()).verdict == "fails"


@pytest.mark.slow
@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_row_sum_law_holds_over_long_runs(depth, activation) -> None:
    for name, kind in product(LINEAR_IN_GRADIENTS, DECAYS):
        for seed in range(4):
            run = small_run(
                OPTIMIZERS[name], DECAYS[kind], "ce", depth, activation, steps=20_000, seed=seed,
                record=ufm.LogSpaced(60),
            )  # fmt: skip
            assert judge(registry()[LAW], run.judged()).verdict == "holds"


# ------------------------------------------------------------------------------------ fixed points


def settled(optimizer, decay, steps: int = 4000) -> tuple[ufm.DUFM, ufm.Trajectory]:
    problem = ufm.DUFM(3, 4, 3, activation="identity")
    init, record = ufm.Gaussian(0.5), ufm.At([0])
    return problem, ufm.simulate(problem, optimizer, decay, steps=steps, init=init, record=record)


LAM = 0.02


def slope(problem: ufm.DUFM, run: ufm.Trajectory) -> float:
    """Norm of the gradient of the objective with coupled decay LAM at the end of the run."""
    gradient = problem.gradient(run.state(len(run) - 1), ufm.Coupled(LAM))
    return float(np.sqrt(sum(np.sum(np.square(block)) for block in gradient.values())))


def test_coupled_decay_leads_every_optimizer_to_collapse_in_a_linear_chain() -> None:
    for optimizer in (
        ufm.GD(ufm.Cosine(0.5)), ufm.Momentum(ufm.Cosine(0.05), 0.9), ufm.SignGD(ufm.Cosine(5e-3)),
        ufm.Signum(ufm.Cosine(5e-3), 0.9), ufm.Adam(ufm.Cosine(0.01)),
    ):  # fmt: skip
        ending = ufm.compare(settled(optimizer, ufm.Coupled(LAM))[1]).ending
        assert ending.name == "DNC", optimizer
        assert ending["DNC"].difference < 1e-5 * ending["DNC"].loss


def test_decoupled_gd_is_coupled_gd_and_momentum_needs_the_rate_over_1_minus_beta() -> None:
    _, coupled = settled(ufm.GD(0.2), ufm.Coupled(LAM), steps=200)
    _, decoupled = settled(ufm.GD(0.2), ufm.Decoupled(LAM), steps=200)
    np.testing.assert_allclose(decoupled.states, coupled.states, atol=1e-12)
    for nesterov in (False, True):
        optimizer = ufm.Momentum(0.05, 0.9, nesterov=nesterov)
        assert slope(*settled(optimizer, ufm.Decoupled(LAM / (1 - 0.9)))) < 1e-10
        assert slope(*settled(optimizer, ufm.Decoupled(LAM))) > 1e-3


def test_decoupled_adam_ends_where_the_objective_has_a_slope() -> None:
    for rate in (LAM, 1.0):
        assert slope(*settled(ufm.Adam(ufm.Cosine(0.01)), ufm.Decoupled(rate))) > 1e-2
    assert slope(*settled(ufm.Adam(ufm.Cosine(0.01)), ufm.Coupled(LAM))) < 1e-5


# ------------------------------------------------------------------------------------------ figure


@pytest.mark.slow
def test_figure_in_full() -> None:
    data = figures.load("dufm_optimizers").compute(False)
    assert data.sizes["seed"] >= 16
    assert (data["counts"].sum("solution") == data.sizes["seed"]).all()
    SGD, others = ["GD", "momentum"], ["SignGD", "Signum", "Adam"]
    law = data["nc0_law"]
    for model in data["model"].values:
        applies = 1 if model.startswith("CE") else 0
        assert (law.sel(model=model, optimizer=SGD) == applies).all()
    assert (law.sel(optimizer=others) == 0).all()
    linear = data.sel(model="MSE, linear", decay="coupled")
    assert (linear["counts"].sel(solution="DNC") == 16).all()
    assert float(np.abs(linear["ratio"] - 1).max()) < 1e-5
    pairs = data.sel(model="CE, linear", decay="coupled", depth=2)["counts"].sel(solution="low rank")
    assert (pairs >= 8).all()
    deep = data.sel(model="MSE, ReLU", decay="coupled", depth=4)
    assert float((deep["ratio"] < 1).mean()) > 0.5
    assert (
        float(deep["ratio"].min())
        > float(data["known"].sel(model="MSE, ReLU", depth=4, closed_form="SRG, kneser")) - 1e-3
    )
    yardstick = data["ratio"].median("seed").sel(optimizer=["SignGD", "Signum"])
    assert (yardstick.sel(decay="decoupled") > 1.02 * yardstick.sel(decay="coupled")).all()


# ----------------------------------------------------------------------------------------- compare


def ending_of(problem, decay, start=None, steps: int = 0, lr: float = 0.5) -> Ending | None:
    init = start or ufm.Gaussian(0.5)
    return ufm.compare(ufm.simulate(problem, ufm.GD(lr), decay, steps=steps, init=init)).ending


SRG_PROBLEM, SRG_DECAY = ufm.DUFM(10, 10, 4), ufm.Coupled(0.004)


def test_compare_says_which_solution_was_reached_and_who_is_lower() -> None:
    ending = ending_of(SRG_PROBLEM, SRG_DECAY, srg(SRG_PROBLEM, SRG_DECAY).start, steps=20)
    assert ending.name == "SRG, kneser"
    assert [row.name for row in ending] == ["SRG, kneser", "SRG, identity", "DNC", "zero"]
    assert [row.rank for row in ending] == [5, 5, 10, 0]
    reached, collapse = ending["SRG, kneser"], ending["DNC"]
    assert reached.lower == "solution"  # fixed steps stall above the kink
    assert 0 < reached.difference < 1e-3
    assert reached.distance < 1e-2 < collapse.distance
    assert collapse.lower == "run"
    assert collapse.loss == dnc(SRG_PROBLEM, SRG_DECAY).loss
    assert collapse.loss + collapse.difference == pytest.approx(ending.classification.loss, rel=1e-14)
    with pytest.raises(KeyError, match="SRG, identity"):
        ending["SRG, best"]


def test_a_run_that_stays_at_a_solution_is_as_low_as_it() -> None:
    ending = ending_of(SRG_PROBLEM, SRG_DECAY, dnc(SRG_PROBLEM, SRG_DECAY).start)
    assert ending.name == "DNC"
    assert ending["DNC"].lower == ""
    assert abs(ending["DNC"].difference) < 1e-14
    assert ending["SRG, kneser"].lower == "solution"


def test_the_ending_is_that_of_classify_solution() -> None:
    problem = ufm.DUFM(4, 6, 3, per_class=2, activation="identity", loss="ce")
    decay = ufm.Coupled(0.005)
    run = ufm.simulate(problem, ufm.GD(0.5), decay, steps=1000, init=ufm.Gaussian(0.5))
    ending = ufm.compare(run).ending
    expected = classify_solution(run, solutions=(dnc(problem, decay), low_rank(problem, decay)))
    assert ending.name == expected.name
    for found in expected.distances:
        assert ending[found.solution].distance == found.distance
    assert ending.classification.loss == pytest.approx(run.loss[-1], rel=1e-12)


def test_report_prints_the_solutions_below_the_claims() -> None:
    run = ufm.simulate(SRG_PROBLEM, ufm.GD(0.5), SRG_DECAY, steps=0, init=srg(SRG_PROBLEM, SRG_DECAY).start)
    report = ufm.compare(run)
    claims, table = str(report).split("\n\n")
    assert claims == str(replace(report, ending=None))
    lines = table.splitlines()
    assert lines[0].split() == ["solution", "loss", "run", "-", "loss", "lower", "distance", "rank"]
    assert [line.endswith("<- reached") for line in lines] == [False, True, False, False, False, False, False]
    assert lines[-2].startswith("the run ends at loss 0.08091133, SRG, kneser: the distance is ")
    assert lines[-1].startswith(
        "it is at SRG, kneser to round-off, the lowest solution known in closed form; "
    )


def test_a_state_under_two_names_is_listed_once() -> None:
    linear = ending_of(ufm.DUFM(3, 4, 2, activation="identity"), ufm.Coupled(0.01))
    assert [row.name for row in linear] == ["DNC", "zero"]
    two = ending_of(ufm.DUFM(2, 4, 3, activation="identity", loss="ce"), ufm.Coupled(0.01))
    assert [row.name for row in two] == ["DNC", "zero"]


def test_many_classes_are_not_relabelled() -> None:
    problem, decay = ufm.DUFM(17, 17, 2), ufm.Coupled(1e-3)
    ending = ending_of(problem, decay, dnc(problem, decay).start)
    assert ending.name == "DNC"
    assert all(np.isnan(row.distance) for row in ending)
    assert "nan" not in str(ending)
    assert str(ending).count("<- reached") == 1


NO_CLOSED_FORM = {
    "no decay": (ufm.DUFM(3, 4, 2), None),
    "decoupled": (ufm.DUFM(3, 4, 2), ufm.Decoupled(0.01)),
    "mixed": (ufm.DUFM(3, 4, 2), ufm.Mixed(0.01, 0.01)),
    "frozen": (ufm.DUFM(3, 4, 2, features=ufm.SimplexETF()), ufm.Coupled(W1=0.01, W2=0.01)),
}


@pytest.mark.parametrize("case", NO_CLOSED_FORM)
def test_no_closed_form_no_ending(case) -> None:
    problem, decay = NO_CLOSED_FORM[case]
    assert ending_of(problem, decay, steps=5, lr=0.1) is None


def test_a_diverged_run_has_no_ending() -> None:
    problem = ufm.DUFM(3, 4, 3, loss=MSE())
    run = ufm.simulate(problem, ufm.GD(1e3), ufm.Coupled(1.0), steps=200, throw=False)
    assert run.status.name == "diverged"
    assert ufm.compare(run).ending is None


def test_importing_compare_loads_no_solutions(python) -> None:
    code = (
        "import sys, ufm.compare; print([name for name in sys.modules if name.startswith('ufm.solutions')])"
    )
    assert python(code).strip() == "[]"
