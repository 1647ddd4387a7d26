"""``ufm sweep``: the file, the folder, and what is refused."""

import pytest
import xarray

import ufm
from ufm.cli import main
from ufm.errors import IncompatibleError, InvalidProblemError, StorageError
from ufm.sweeps.toml import plan_from_table, plan_from_toml

FILE = """
steps = 20
optimizer = ["Momentum", "Adam"]
lr = [0.01, { type = "StepDecay", lr = 0.1 }]
momentum = [0.0, 0.9]
seed = { range = [0, 2] }
per_class = [1, [2, 1, 1]]
metrics = ["nc0", "loss"]
claims = ["zhao2026.thm3.2"]

[problem]
type = "UFM"
classes = 3
width = 4

[[decay]]
type = "Coupled"
rate = 0.01

[[decay]]
type = "Decoupled"
W = 0.01

[record]
type = "Every"
n = 5
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "grid.toml"
    path.write_text(FILE)
    return path


def test_a_file_is_the_call(file):
    given = plan_from_toml(file).run()
    called = ufm.sweep(
        ufm.UFM(3, 4), [ufm.Momentum, ufm.Adam], [ufm.Coupled(0.01), ufm.Decoupled(W=0.01)], steps=20,
        lr=[0.01, ufm.StepDecay(0.1)], momentum=[0.0, 0.9], per_class=[1, (2, 1, 1)], seed=range(2),
        record=ufm.Every(5), metrics=["nc0", "loss"], claims=["zhao2026.thm3.2"],
    )  # fmt: skip
    given = given.transpose(*called.dims)
    assert given.equals(called)


def test_zipped_fields_and_no_decay_in_a_file():
    table = {
        "problem": {"type": "UFM", "classes": 3, "width": 4}, "steps": 5,
        "zipped": {"method": {"optimizer": ["GD", "SignGD"], "lr": [0.1, 0.01]}}, "decay": "none",
    }  # fmt: skip
    data = plan_from_table(table).run()
    assert data["lr"].dims == ("method",)
    assert data["optimizer"].values.tolist() == ["GD", "SignGD"]


def test_the_file_of_a_run_is_a_sweep_of_one_cell(tmp_path):
    from ufm.config import run_to_toml
    from ufm.run import Run

    path = tmp_path / "run.toml"
    path.write_text(run_to_toml(Run(ufm.UFM(3, 4), ufm.Signum(0.1, 0.5), ufm.Coupled(0.1), steps=5)))
    assert dict(plan_from_toml(path).run().sizes) == {"record": 6}


def test_dry_run_then_run_then_resume(file, capsys, monkeypatch):
    assert main(["sweep", str(file), "--dry-run"]) == 0
    assert "runs     64" in capsys.readouterr().out
    folder = file.with_suffix("")
    assert not folder.exists()
    assert main(["sweep", str(file), "--workers", "1"]) == 0
    assert "64 completed\nzhao2026.thm3.2: holds 8, not applicable 56" in capsys.readouterr().out
    saved = xarray.load_dataset(folder / "sweep.nc", engine="scipy")
    assert saved.equals(plan_from_toml(file).run())
    assert main(["sweep", str(file)]) == 2
    assert "is not empty; allowed: another folder with --out, or --resume" in capsys.readouterr().err

    def refuse(shard):
        raise AssertionError("a finished shard was computed again")

    monkeypatch.setattr("ufm.sweeps.workers.compute", refuse)
    assert main(["sweep", str(file), "--resume"]) == 0


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"problem": None}, "problem is missing"),
        ({"optimizer": "Sgd"}, "optimizer is 'Sgd'; allowed: a table, or one of the classes GD, Momentum"),
        ({"seed": {"range": [1]}}, "seed.range is"),
        ({"workers": 3}, "workers is 3; allowed: what is swept"),
        ({"zipped": 3}, "zipped is 3"),
        ({"zipped": {"lr": {"lr": [1]}}, "lr": [2]}, "zipped.lr is"),
        ({"wdith": [1]}, "sweep.wdith is no field"),
        ({"decay": {"type": "Coupled", "rate": -1}}, "decay|Coupled"),
    ],
)
def test_bad_files_get_one_sentence(change, sentence):
    table = {
        "problem": {"type": "UFM", "classes": 3, "width": 4},
        "optimizer": {"type": "GD", "lr": 0.1},
        "steps": 5,
    }
    table = {name: value for name, value in (table | change).items() if value is not None}
    with pytest.raises((InvalidProblemError, IncompatibleError), match=sentence):
        plan_from_table(table)


def test_an_axis_inside_a_table_is_told_where_it_belongs():
    table = {"problem": {"type": "UFM", "classes": 3, "width": 4}, "steps": 5}
    inside = table | {"optimizer": {"type": "GD", "lr": [0.1, 0.2]}}
    with pytest.raises(
        InvalidProblemError, match=r'stands above the tables instead: optimizer = "GD", lr = \[0.1, 0.2'
    ):
        plan_from_table(inside)
    above = table | {"optimizer": "GD", "lr": [0.1, 0.2], "decay": "Coupled", "rate": [0.1, 0.01]}
    assert plan_from_table(above).grid.shape == (2, 2)
    with pytest.raises(InvalidProblemError, match=r"lr is -1; allowed: [^.]*StepDecay\(0.1\)\.$"):
        plan_from_table(table | {"optimizer": {"type": "GD", "lr": -1}})


def test_a_file_that_is_none_gets_one_sentence(tmp_path):
    with pytest.raises(StorageError, match="does not exist; allowed: a TOML file that describes a sweep"):
        plan_from_toml(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("steps = \n")
    with pytest.raises(InvalidProblemError, match="is not TOML"):
        plan_from_toml(tmp_path / "bad.toml")


def test_ctrl_c_says_how_to_continue(file, capsys, monkeypatch):
    def interrupt(shard):
        raise KeyboardInterrupt

    monkeypatch.setattr("ufm.sweeps.workers.compute", interrupt)
    assert main(["sweep", str(file)]) == 130
    assert "--resume' continues" in capsys.readouterr().err


def test_dask_without_the_package_or_a_scheduler_gets_one_sentence(file, capsys):
    assert main(["sweep", str(file), "--dask", "tcp://127.0.0.1:1"]) == 2
    error = capsys.readouterr().err
    assert "pip install 'ufm[cluster]'" in error or "there is no Dask scheduler at" in error
