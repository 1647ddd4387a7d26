"""One run on a page: what stands in each panel, and what is refused."""

import numpy as np
import pytest

import ufm
from ufm.errors import InvalidProblemError


@pytest.fixture(scope="module")
def run():
    record = ufm.LogSpaced(20)
    return ufm.simulate(ufm.UFM(3, 4, per_class=2), ufm.GD(0.1), ufm.Coupled(0.01), steps=300, record=record)


def lines_of(ax):
    return {line.get_label(): line for line in ax.lines}


def test_panels_show_metrics_prediction_error_and_objective(run):
    report = ufm.compare(run)
    nc0, error, collapse, objective = ufm.overview(run, report).axes
    row, positive = report.best, slice(1, None)  # step 0 has no place on a logarithmic axis
    assert nc0.get_title(loc="left") == f"{row.name} holds"
    assert np.array_equal(lines_of(nc0)["prediction"].get_ydata()[-1:], row.prediction.nc0[-1:])
    assert lines_of(nc0)["simulation"].get_ydata()[-1] == ufm.metrics.nc0(run)[-1]
    shown = lines_of(error)["error"].get_ydata()
    assert np.array_equal(shown[shown > 0], row.prediction.error[row.prediction.error > 0])
    assert np.array_equal(
        lines_of(error)["what round-off can do"].get_ydata()[positive], row.prediction.bound[positive]
    )
    for name, metric in (("NC1", ufm.metrics.nc1), ("NC2", ufm.metrics.nc2), ("NC3", ufm.metrics.nc3)):
        assert np.array_equal(lines_of(collapse)[name].get_ydata(), metric(run))
    curves = lines_of(objective)
    assert np.array_equal(curves["fit + penalty"].get_ydata(), run.loss)
    assert np.array_equal(curves["fit"].get_ydata(), run.fit)
    lowest = report.ending.rows[0]
    assert list(curves[lowest.name].get_ydata()) == [lowest.loss] * 2


def test_without_a_theorem_the_failing_hypothesis_is_told():
    run = ufm.simulate(ufm.UFM(3, 4), ufm.SignGD(1e-3), ufm.Decoupled(0.05), steps=20)
    figure = ufm.overview(run)
    nc0, error, collapse, _ = figure.axes
    assert nc0.get_title(loc="left") == "no theorem predicts NC0"
    assert "prediction" not in lines_of(nc0)
    assert "not linear in the gradients" in " ".join(error.texts[0].get_text().split())
    assert list(lines_of(collapse)) == ["NC2", "NC3"]  # one sample per class varies in no class
    assert "SignGD(lr=0.001); Decoupled(0.05); completed at step 20" in " ".join(
        figure.get_suptitle().split()
    )
    figure.draw_without_rendering()


def test_a_regression_shows_norms_and_its_own_collapse():
    targets = np.random.default_rng(0).standard_normal((2, 20))
    run = ufm.simulate(ufm.RegressionUFM(targets, 3), ufm.GD(0.1), ufm.Coupled(0.01), steps=20)
    norms, _, collapse, _ = ufm.overview(run).axes
    assert np.allclose(
        lines_of(norms)["||W1||"].get_ydata(), np.linalg.norm(run["W1"], axis=(1, 2)), rtol=1e-15
    )
    assert np.array_equal(lines_of(collapse)["NRC3"].get_ydata(), ufm.metrics.nrc3(run))


def test_a_diverged_run_is_drawn_as_far_as_it_came():
    run = ufm.simulate(ufm.UFM(3, 4), ufm.GD(1e3), ufm.Coupled(1.0), steps=1000, throw=False)
    assert run.status.name == "diverged"
    ufm.overview(run).draw_without_rendering()


@pytest.mark.parametrize("value", [None, "run.npz", np.zeros(3)])
def test_only_runs_are_drawn(value):
    with pytest.raises(InvalidProblemError, match=r"overview.run is .*; allowed: a Trajectory"):
        ufm.overview(value)


def test_a_single_record_is_refused():
    run = ufm.simulate(ufm.UFM(3, 4), ufm.GD(0.1), steps=0)
    with pytest.raises(InvalidProblemError, match="number of records is 1; allowed: at least 2"):
        ufm.overview(run)
