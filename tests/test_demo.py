"""The main job, end to end on fewer steps: table, figure, data and runs."""

import csv

import numpy as np
import pytest

import ufm
from ufm import demo


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Folder, printed text and exit code of a quick demo."""
    folder, lines = tmp_path_factory.mktemp("demo") / "new", []
    code = demo.main(folder, quick=True, progress=False, say=lines.append)
    return folder, "\n".join(lines), code


def rows_of(folder):
    with open(folder / "table.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_run_has_a_verdict_or_a_reason(done):
    folder, _, code = done
    assert code == 0
    rows = {row["run"]: row for row in rows_of(folder)}
    assert list(rows) == [case.label for case in demo.CASES]
    for case in demo.CASES:
        row = rows[case.label]
        if case.setting is demo.ETF or isinstance(case.optimizer, ufm.GD | ufm.Momentum):
            assert row["verdict"] == "holds", case.label
            assert float(row["error/bound"]) <= 1
            floor = 1e-27 if case.setting is demo.ETF else 0.0  # round-off of a sum of ten numbers of size 10
            assert float(row["predicted"]) == pytest.approx(float(row["alpha"]), rel=1e-3, abs=floor)
        else:
            assert row["claim"] == "none"
            assert "not linear in the gradients" in row["verdict"]


def test_claims_are_the_most_specific_ones(done):
    claims = {row["run"]: row["claim"] for row in rows_of(done[0])}
    assert claims["GD decoupled"] == claims["Momentum decoupled"] == "zhao2026.thm3.1"
    assert claims["GD coupled"] == claims["Momentum coupled"] == "zhao2026.thm3.2"
    assert claims["Momentum mixed"] == claims["Nesterov coupled"] == "ufm.row_sum_law"
    assert claims["SignGD decoupled"] == claims["Signum decoupled"] == "zhao2026.thm3.3"
    assert claims["Adam(0, 0, eps=0) decoupled"] == "zhao2026.thm3.3"
    assert claims["SignGD coupled"] == claims["SignGD step decay"] == "zhao2026.thm3.4"
    for label in ("Signum coupled", "AdamW decoupled", "Adam coupled", "Adam mixed"):
        assert claims[label] == "ufm.symmetric_path"


def test_every_optimizer_has_a_verdict(done):
    judged = {row["optimizer"].split("(")[0] for row in rows_of(done[0]) if row["claim"] != "none"}
    assert judged == {"GD", "Momentum", "SignGD", "Signum", "Adam"}


def test_decoupled_sign_methods_break_collapse_and_coupled_ones_do_not(done):
    alpha = {row["run"]: float(row["alpha"]) for row in rows_of(done[0])}
    assert min(alpha["SignGD decoupled"], alpha["Signum decoupled"], alpha["AdamW decoupled"]) > 1e3
    assert max(alpha["SignGD coupled"], alpha["Signum coupled"], alpha["Adam coupled"]) < 1e-1


def test_the_objective_is_printed_with_all_its_factors(done):
    text = done[1]
    assert "F = (1/50) sum_i CE(z_i, y_i) + (0.005/2) ||H||_F^2 + (0.005/2) ||W1||_F^2,  Z = W1 H" in text
    assert "W1 <- (1 - 0.005 lr) W1" in text
    assert "[1] no theorem: SignGD steps are not linear" in text


def test_figure_curves_and_runs_are_written(done):
    folder = done[0]
    assert (folder / "demo.png").read_bytes().startswith(b"\x89PNG")
    curves = np.load(folder / "curves.npz")
    assert curves["alpha"].shape == (len(demo.CASES), len(curves["steps"]))
    for i, case in enumerate(demo.CASES):
        run = ufm.load(folder / case.file)
        assert np.array_equal(ufm.metrics.nc0(run), curves["alpha"][i])


def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ufm.StorageError, match="file"):
        demo.main(tmp_path / "file", quick=True, progress=False, say=lambda line: None)
