"""Bad command lines: one sentence on the error stream, exit code 2, no traceback, nothing written."""

import importlib
import os
import re
from pathlib import Path

import pytest
from sentences import full_disk, is_one_sentence

import ufm
from ufm import cli
from ufm.errors import InterruptedRunError

TOML = """
steps = 4

[problem]
type = "UFM"
classes = 2
width = 2

[optimizer]
type = "GD"
lr = 0.1
"""
COMMANDS = ("demo", "run", "sweep", "compare", "claims", "environment", "rerun", "resume")
FILE = {"run": "run.toml", "sweep": "run.toml", "compare": "run.npz", "rerun": "run.npz", "resume": "run.npz"}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with the description of a run and the run itself."""
    monkeypatch.chdir(tmp_path)
    Path("run.toml").write_text(TOML)
    Path("file").write_text("mine")
    ufm.simulate(ufm.UFM(classes=2, width=2), ufm.GD(0.1), steps=4).save("run.npz")
    return tmp_path


def contents(folder):
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def refusal(capsys, arguments):
    """What a command that is refused says."""
    try:
        code = cli.main(arguments)
    except SystemExit as end:
        code = end.code
    caught = capsys.readouterr()
    assert (code, caught.out) == (2, "")
    assert is_one_sentence(caught.err.removesuffix("\n")), caught.err
    assert caught.err.startswith("ufm")
    return caught.err


UNKNOWN = {
    f"{command} {FILE.get(command, '')} --fly": r"^ufm.*: unrecognized arguments: --fly; allowed: what 'ufm"
    for command in COMMANDS
}
MISSING = {
    command: rf"^ufm {command}: the following arguments are required: file; allowed" for command in FILE
}
TOO_MANY = {
    f"{command} {FILE.get(command, '')} a b": "unrecognized arguments: .*b; allowed" for command in COMMANDS
}
NO_FILE = {
    f"{command} no.{'toml' if FILE[command] == 'run.toml' else 'npz'}": "does not exist; allowed"
    for command in FILE
}
FOLDERS = {f"{command} .": "is a folder; allowed" for command in FILE}
BAD = UNKNOWN | MISSING | TOO_MANY | NO_FILE | FOLDERS
BAD |= {
    "fly": "invalid choice: 'fly'",
    "demo --out file": "file is no folder .*; allowed: a place with access",
    "demo --out /sys/demo": "cannot be written: /sys/demo is no folder",
    "demo --out": "argument --out: expected one argument; allowed",
    "run run.npz": "run.npz is not UTF-8 text",
    "run file": r"file is not TOML \(.*\); allowed",
    "run run.toml --out run.npz": "run.npz exists; allowed: another file with --out, or --overwrite",
    "run run.toml --out no/run.npz": "there is no folder .*no; allowed: one that exists",
    "run run.toml --out .": "is a folder; allowed: the name of a file",
    "run run.toml --out file/run.npz": "there is no folder .*file; allowed",
    "run run.toml --out run.toml --overwrite": "is the file that describes the run; allowed: another file",
    "run run.toml --out /sys/run.npz": "cannot be written|no permission",
    "run run.toml --over": "unrecognized arguments: --over",
    "sweep run.npz": "run.npz is not UTF-8 text",
    "sweep run.toml --out file": r"file cannot be a folder \(File exists\); allowed",
    "sweep run.toml --out .": "is not empty; allowed: another folder with --out, or --resume",
    "sweep run.toml --out /sys/sweep": "cannot be a folder .*; allowed: a place with access",
    "sweep run.toml --workers 0 --out new": "sweep.workers is 0; allowed: a whole number >= 1",
    "sweep run.toml --workers many": "argument --workers: invalid int value: 'many'; allowed",
    "sweep run.toml --workers 1.5": "argument --workers: invalid int value: '1.5'",
    "sweep run.toml --workers 1 --dask x": "argument --dask: not allowed with argument --workers",
    "sweep run.toml --dask x --dry-run": "--dask would be ignored by --dry-run; allowed: one of them",
    "compare run.toml": "run.toml is damaged or not a file of this package .*; next",
    "compare run.npz --json=yes": "argument --json: ignored explicit argument 'yes'",
    "claims fermat.last": "claims: there is no claim 'fermat.last'; allowed",
    "rerun run.toml": "is damaged or not a file of this package",
    "rerun run.npz --out run.npz": "run.npz exists; allowed",
    "rerun run.npz --overwrite": "--overwrite would be ignored without --out; allowed: both, or neither",
    "resume run.npz": "has taken all 4 steps; allowed: a larger number with --steps",
    "resume run.npz --steps 3": "resume.steps is 3; allowed: a total of at least the 4 steps",
    "resume run.npz --steps -1": "resume.steps is -1; allowed: a whole number >= 0",
    "resume run.npz --steps many": "argument --steps: invalid int value: 'many'; allowed",
    "resume run.npz --steps 5 --out file": "file exists; allowed",
    "resume run.npz --steps 5 --overwrite": "--overwrite would be ignored without --out",
    "resume run.npz --steps 9999999999999999999": "resume.steps is 9999999999999999999; allowed",
    "resume run.npz --steps 1000000000000": "Every.n: GiB of the records of 10.* steps is",
}


@pytest.mark.parametrize("line", BAD)
def test_a_bad_command_line_is_one_sentence(place, capsys, line):
    if "/sys/" in line and not Path("/sys").is_dir():
        pytest.skip("needs a folder in which even root cannot write")
    before = contents(place)
    assert re.search(BAD[line], refusal(capsys, line.split()))
    made = contents(place).keys() - before.keys()
    assert {path.name for path in made} <= {"new"}  # the folder of a sweep is made first, and stays empty
    assert all(contents(place)[path] == content for path, content in before.items())


@pytest.mark.parametrize(
    "line",
    [
        "run run.toml --out new.npz",
        "rerun run.npz --out new.npz",
        "resume run.npz --steps 9 --out new.npz",
        "resume run.npz --steps 9",
        "sweep run.toml --out new",
        "demo --quick --out new",
    ],
)
def test_a_full_disk_is_one_sentence(place, capsys, line):
    before = contents(place)
    with full_disk(60):
        sentence = refusal_of_a_full_disk(capsys, line.split())
    assert "cannot be written (File too large); allowed: a place with room and access." in sentence
    left = contents(place)
    assert all(left[path] == content for path, content in before.items())
    assert all(path.is_dir() or path.name == ".lock" for path in left.keys() - before.keys())


def refusal_of_a_full_disk(capsys, arguments):
    """Only the error stream: what is printed before the first file is written stays printed."""
    assert cli.main(arguments) == 2
    sentence = capsys.readouterr().err
    assert is_one_sentence(sentence.removesuffix("\n")), sentence
    return sentence


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write to every folder")
@pytest.mark.parametrize(
    "line", ["run run.toml --out shut/run.npz", "sweep run.toml --out shut/sweep", "demo --out shut/demo"]
)
def test_a_folder_without_permission_is_one_sentence(place, capsys, line):
    (place / "shut").mkdir(mode=0o500)
    assert "ermission" in refusal(capsys, line.split())


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_each_command_shows_an_example_that_parses(command, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main([command, "--help"])
    assert caught.value.code == 0
    found = re.search(rf"example: ufm ({command}.*)", " ".join(capsys.readouterr().out.split()))
    assert found
    assert cli._parser().parse_args(found[1].split()).run is getattr(cli, f"_{command}")


def test_ctrl_c_while_a_sweep_is_estimated_is_not_taken_for_a_refusal(place, monkeypatch, capsys):
    def interrupted(*arguments, **options):
        raise InterruptedRunError("the run was interrupted.", None)

    monkeypatch.setattr("ufm.ensemble.ensemble", interrupted)
    assert cli.main(["sweep", "run.toml", "--dry-run", "--out", "new"]) == 130
    assert capsys.readouterr().err == "ufm: interrupted.\n"


def test_ctrl_c_while_a_figure_is_computed_is_not_taken_for_a_refusal(tmp_path, monkeypatch, capsys):
    def interrupted(quick):
        raise InterruptedRunError("the run was interrupted.", None)

    drawing = importlib.import_module("figures.__main__")
    name = drawing.figures.names()[0]
    monkeypatch.setattr(drawing.figures.load(name), "compute", interrupted)
    monkeypatch.setattr("sys.argv", ["", name, "--out", str(tmp_path)])
    assert drawing.command() == 130
    assert capsys.readouterr().err == "figures: interrupted.\n"
