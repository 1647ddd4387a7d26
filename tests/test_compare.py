"""Verdicts of compare: holds, fails, not applicable, inconclusive."""

from dataclasses import replace

import numpy as np
import pytest

import ufm
from ufm.claims import Prediction
from ufm.errors import InvalidProblemError
from ufm.losses import MSE

LAW = "ufm.row_sum_law"


def run_of(optimizer=None, decay=None, problem=None, **options):
    problem = problem or ufm.UFM(5, 6, per_class=2)
    return ufm.simulate(problem, optimizer or ufm.GD(0.1), decay, **{"steps": 2000, "seed": 4, **options})


def test_a_true_run_holds_and_its_control_is_refused():
    report = ufm.compare(run_of(ufm.Momentum(0.1, 0.9), ufm.Coupled(1e-2)))
    assert report.ok
    for name in ("zhao2026.lemE.5", "zhao2026.thm3.2", LAW):
        row = report[name]
        assert row.verdict == "holds"
        assert 0 <= row.error <= row.bound
        assert row.ratio <= 1 < row.control
        assert "round-off bound" in row.reason
    assert report.best is report["zhao2026.thm3.2"]
    assert report["zhao2026.thm3.1"].verdict == "not applicable"
    assert "coupled decay 0.01" in report["zhao2026.thm3.1"].reason


@pytest.mark.parametrize("record", [1, 1000, -1])
def test_a_tampered_state_fails(record):
    """One entry of W moved by 1e-9 at one record: far beyond round-off, far below plotting accuracy."""
    traj = run_of(decay=ufm.Coupled(1e-2))
    states = traj.states.copy()
    states[record, traj.problem.offsets["W1"]] += 1e-9
    report = ufm.compare(replace(traj, states=states))
    assert not report.ok
    row = report["zhao2026.thm3.2"]
    assert row.verdict == "fails"
    assert row.error == pytest.approx(1e-9, rel=1e-3)
    assert row.ratio > 100
    assert "times what round-off can do" in row.reason
    # features take no part in the row sum
    states = traj.states.copy()
    states[record, traj.problem.offsets["H"]] += 1e-3
    assert ufm.compare(replace(traj, states=states))["zhao2026.thm3.2"].verdict == "holds"


def test_a_wrong_description_fails():
    """A trajectory that claims another decay, momentum or rate than it was made with."""
    traj = run_of(ufm.Momentum(0.1, 0.9), ufm.Coupled(1e-2))
    others = [
        {"decay": ufm.Coupled(1e-2 * (1 + 1e-6))},
        {"optimizer": ufm.Momentum(0.1, 0.9 - 1e-6)},
        {"optimizer": ufm.Momentum(0.1, 0.9, nesterov=True)},
        {"optimizer": ufm.Momentum(0.1 * (1 + 1e-6), 0.9)},
        {"decay": ufm.Decoupled(1e-2)},
    ]
    for other in others:
        report = ufm.compare(replace(traj, run=replace(traj.run, **other)))
        assert report[LAW].verdict == "fails", other


NOT_APPLICABLE = {
    "mse": ({"problem": ufm.UFM(4, 5, loss=MSE())}, LAW, "not shift-invariant"),
    "adam": ({"optimizer": ufm.Adam(1e-2)}, LAW, "linear in the gradients"),
    "signgd": ({"optimizer": ufm.SignGD(1e-2)}, LAW, "linear in the gradients"),
    "frozen": ({"problem": ufm.UFM(4, 4, classifier=ufm.SimplexETF())}, LAW, "frozen"),
    "schedule": (
        {"optimizer": ufm.GD(ufm.StepDecay(0.1)), "decay": ufm.Coupled(1e-2)},
        "zhao2026.thm3.2",
        "learning rate changes",
    ),
    "nesterov": (
        {"optimizer": ufm.Momentum(0.1, 0.5, nesterov=True), "decay": ufm.Coupled(1e-2)},
        "zhao2026.thm3.2",
        "Nesterov",
    ),
    "decoupled": ({"decay": ufm.Decoupled(1e-2)}, "zhao2026.thm3.2", "no coupled decay"),
    "mixed": ({"decay": ufm.Mixed(1e-2, 1e-2)}, "zhao2026.thm3.2", "decoupled decay 0.01"),
}


@pytest.mark.parametrize("case", NOT_APPLICABLE)
def test_claims_that_do_not_apply_say_which_hypothesis_fails(case):
    options, name, words = NOT_APPLICABLE[case]
    report = ufm.compare(run_of(**{"steps": 20, **options}))
    row = report[name]
    assert row.verdict == "not applicable"
    assert words in row.reason
    assert np.isnan(row.error)
    assert np.isnan(row.bound)
    assert report.ok
    traj = run_of(**{"steps": 20, **options}).run
    assert ufm.claims.applicable(traj.problem, traj.optimizer, traj.decay, steps=20)[name] == row.reason


def test_round_off_that_has_outgrown_the_quantity_is_inconclusive():
    """Single precision, no decay, a row sum near zero under a large W: nothing can be told."""
    problem = ufm.UFM(10, 10)
    rng = np.random.default_rng(0)
    W = 10 * rng.standard_normal((10, 10))
    W -= W.mean(axis=0) - 1e-4
    traj = run_of(
        ufm.GD(0.01), None, problem, steps=200_000, dtype="float32", record=ufm.LogSpaced(30),
        init=ufm.Given(W=W, H=rng.standard_normal((10, 10))),
    )  # fmt: skip
    report = ufm.compare(traj)
    row = report[LAW]
    print(row.verdict, row.reason, row.control)
    assert row.verdict == "inconclusive"
    assert "round-off" in row.reason
    assert report.ok


def on_the_path(lr, record=None):
    """AdamW over a frozen ETF: with large steps the two-valued path is not stable."""
    problem = ufm.UFM(34, 34, features=ufm.SimplexETF("columns"))
    optimizer, record = ufm.Adam(lr, 0.0, 0.9, 0.0), record or ufm.Every(1)
    return run_of(optimizer, ufm.Decoupled(0.08), problem, steps=200, init=ufm.Zeros(), record=record)


def test_records_without_a_bound_are_not_judged_and_the_reason_counts_them():
    row = ufm.compare(on_the_path(2.0))["ufm.symmetric_path"]
    judged = int(np.isfinite(row.prediction.bound).sum())
    assert 100 < judged < 201
    assert row.verdict == "inconclusive"
    assert "until round-off takes over" in row.reason
    assert row.reason.endswith(f"; {judged} of 201 records were judged")
    assert np.isfinite([row.error, row.bound, row.ratio]).all()
    assert "judged" not in ufm.compare(on_the_path(0.3))["ufm.symmetric_path"].reason


def test_a_run_that_is_judged_at_its_start_alone_is_inconclusive():
    row = ufm.compare(on_the_path(2.0, ufm.At([0, 200])))["ufm.symmetric_path"]
    assert row.verdict == "inconclusive"
    assert row.reason == "round-off may have taken over before the second record; 1 of 2 records were judged"


def test_an_error_that_is_no_number_fails_where_it_is_judged():
    nothing = np.full(3, np.nan)
    found = Prediction("x", nothing, nothing, np.array([1.0, np.inf, 0.0]))
    assert found.judged.tolist() == [True, False, True]
    assert found.ratios.tolist() == [np.inf, 0.0, np.inf]
    assert Prediction("x", np.zeros(3), np.array([0.0, 9.0, 2.0]), np.array([0.0, np.inf, 4.0])).ratio == 0.5


def test_a_report_prints_every_row_judged_ones_first():
    report = ufm.compare(run_of(decay=ufm.Coupled(1e-2), steps=100))
    lines = str(report).split("\n\n")[0].splitlines()
    assert lines[0].split() == ["claim", "verdict", "error", "bound", "control", "reason"]
    assert {line.split()[0] for line in lines[1:]} == {row.name for row in report}
    verdicts = ["not applicable" in line for line in lines[1:]]
    assert verdicts == sorted(verdicts)
    assert "nan" not in str(report)
    with pytest.raises(KeyError, match=r"zhao2026\.thm3\.2"):
        report["no such claim"]


def test_rows_and_reports_show_themselves_in_a_line():
    report = ufm.compare(run_of(decay=ufm.Coupled(1e-2), steps=100))
    row = report["zhao2026.lemE.5"]
    assert str(row) == f"zhao2026.lemE.5 holds: {row.reason}"
    holds = sum(row.verdict == "holds" for row in report)
    assert f"<Report: {holds} holds, " in repr(report)
    assert "\n" not in repr(report)
    assert not any(",:" in row.reason for row in report)


def test_only_trajectories_are_compared():
    with pytest.raises(InvalidProblemError, match="a Trajectory"):
        ufm.compare(ufm.UFM(3, 4))


def test_a_run_of_no_steps_and_a_diverged_run_are_judged():
    report = ufm.compare(run_of(decay=ufm.Coupled(1e-2), steps=0))
    assert report.ok
    traj = run_of(ufm.GD(1e3), ufm.Coupled(1.0), throw=False)
    assert traj.status.name == "diverged"
    assert ufm.compare(traj).ok
