"""Bad files and folders: one sentence each, nothing half-written, nothing left behind."""

import io
import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from sentences import full_disk, is_one_sentence, zipped

import ufm
from ufm import cli, storage
from ufm.config import run_from_toml
from ufm.errors import StorageError, UfmError
from ufm.sweeps.toml import plan_from_toml

TOML = """
steps = 4
seed = 1

[problem]
type = "UFM"
classes = 2
width = 2

[optimizer]
type = "GD"
lr = 0.1
"""
UNWRITABLE = Path("/sys")  # root may not write here either


@pytest.fixture(scope="module")
def trajectory():
    return ufm.simulate(ufm.UFM(classes=2, width=2, features=np.eye(2)), ufm.GD(0.1), steps=4)


@pytest.fixture
def saved(trajectory, tmp_path):
    return trajectory.save(tmp_path / "run.npz")


# ------------------------------------------------------------------------------------------ TOML


def changed(old, new):
    assert old in TOML
    return TOML.replace(old, new)


BAD_TOML = {
    "empty": ("", "(steps|problem) is missing; allowed: a file with steps"),
    "not UTF-8": (b"steps = 4 # \xff", "is not UTF-8 text .byte 12.; allowed: a TOML file"),
    "UTF-16": (TOML.encode("utf-16"), "is not UTF-8 text"),
    "binary": (bytes(range(256)), "is not UTF-8 text|is not TOML"),
    "half a line": ("steps = ", "is not TOML .*; allowed: a TOML file that describes"),
    "duplicate table": (TOML + "[problem]\n", r"is not TOML \(Cannot declare .*'problem'"),
    "duplicate key": (TOML + "lr = 0.2\n", "is not TOML .Cannot overwrite a value"),
    "no steps": (changed("steps = 4\n", ""), "steps is (missing|None)"),
    "no optimizer": (TOML.split("[optimizer]")[0], "optimizer is (missing|None)"),
    "no type": (changed('type = "GD"\n', ""), "optimizer.type is missing; allowed: 'GD' or"),
    "unknown key": ("stepz = 4\n" + TOML, "stepz is (4|no field)"),
    "unknown field": (
        changed("width = 2", "width = 2\ndepth = 3"),
        "problem.depth is 3; allowed: the fields of UFM",
    ),
    "unknown type": (changed('"GD"', '"SGD"'), "optimizer.type is 'SGD'; allowed: 'GD' or"),
    "type of another slot": (changed('"GD"', '"UFM"'), "optimizer.type is 'UFM'"),
    "type is a number": (changed('"GD"', "3"), "optimizer.type is 3"),
    "text for a number": (changed("width = 2", 'width = "2"'), "UFM.width is '2'; allowed: a whole number"),
    "float for a whole number": (changed("width = 2", "width = 2.0"), "UFM.width is 2.0"),
    "bool for a whole number": (changed("width = 2", "width = true"), "UFM.width is True"),
    "date for a number": (changed("lr = 0.1", "lr = 2020-01-01"), "GD.lr is datetime.date"),
    "nan": (changed("lr = 0.1", "lr = nan"), "GD.lr is nan"),
    "inf": (changed("lr = 0.1", "lr = inf"), "GD.lr is inf"),
    "list of texts": (changed("width = 2", 'width = 2\nper_class = ["a", "b"]'), "UFM.per_class is"),
    "table for a number": (
        changed("width = 2", "width = {a = 1}"),
        "problem.width is {'a': 1}; allowed: a plain value",
    ),
    "text for a table": (
        changed("seed = 1", 'record = "Every"'),
        "record is 'Every'; allowed: (a table|.*LogSpaced)",
    ),
    "negative seed": (changed("seed = 1", "seed = -1"), "seed is -1"),
    "large steps": (changed("steps = 4", "steps = 99999999999999999999"), "steps is 99999999999999999999"),
    "ragged array": (
        changed("width = 2", "width = 2\nfeatures = [[1.0], [1.0, 2.0]]"),
        "problem.features is",
    ),
    "array of texts": (changed("width = 2", 'width = 2\nfeatures = [["a"]]'), "problem.features is"),
    "empty array": (
        changed("width = 2", "width = 2\nfeatures = []"),
        r"shape \(0,\)'; allowed: shape \(2, 2\)",
    ),
    "a declared shape": (
        changed("lr = 0.1", "lr = {type = 'Rates', values = {shape = [1000000000000]}}"),
        "optimizer.lr.values is {'shape'",
    ),
    "MSE with targets": (
        changed("width = 2", "width = 2\nloss = {type = 'MSE', targets = [[1.0, 0.0], [0.0, 1.0]]}"),
        "problem.loss.targets is .*; allowed: the fields of MSE, reduction",
    ),
    "a key of many parts": (TOML + "a." * 20_000 + "b = 1", "is nested too deeply; allowed"),
    "brackets": ("x = " + "[" * 20_000, "is nested too deeply; allowed"),
    "all frozen": (
        changed("width = 2", "width = 2\nfeatures = [[1, 0], [0, 1]]\nclassifier = [[1, 0], [0, 1]]"),
        "every block is frozen; allowed: at least one trained",
    ),
}


@pytest.mark.parametrize("reader", [run_from_toml, plan_from_toml])
@pytest.mark.parametrize("case", BAD_TOML)
def test_a_bad_toml_file_is_one_sentence(tmp_path, case, reader):
    content, sentence = BAD_TOML[case]
    path = tmp_path / "run.toml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    if reader is plan_from_toml and case in ("text for a table", "large steps"):
        sentence = "record is 'Every'|steps is"
    with pytest.raises(UfmError, match=sentence) as caught:
        reader(path)
    assert is_one_sentence(str(caught.value)), str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("reader", [run_from_toml, plan_from_toml, ufm.load])
def test_what_is_no_file_is_one_sentence(tmp_path, reader):
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    bad = {
        tmp_path: "is a folder",
        tmp_path / "missing": "does not exist",
        loop: "cannot be read .Too many",
        None: "path is None",
    }
    if Path("/dev/zero").exists():
        bad[Path("/dev/zero")] = "is a pipe or device"
    for path, sentence in bad.items():
        with pytest.raises(UfmError, match=sentence) as caught:
            reader(path)
        assert is_one_sentence(str(caught.value))


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that even root cannot read")
@pytest.mark.parametrize("reader", [run_from_toml, plan_from_toml])
def test_a_file_that_cannot_be_read_is_one_sentence(reader):
    with pytest.raises(
        StorageError, match=r"/proc/self/mem cannot be read .Input/output error.; allowed: a TOML file"
    ):
        reader("/proc/self/mem")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_permission_is_one_sentence(saved):
    saved.chmod(0)
    for reader in (run_from_toml, plan_from_toml, ufm.load):
        with pytest.raises(StorageError, match=r"cannot be read .Permission denied.; allowed"):
            reader(saved)


def test_a_file_without_permission_is_one_sentence_for_root_too(saved, monkeypatch):
    def denied(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", denied)
    monkeypatch.setattr("io.open", denied)
    for reader in (run_from_toml, plan_from_toml, ufm.load):
        with pytest.raises(StorageError, match=r"cannot be read .Permission denied.; allowed"):
            reader(saved)


# ------------------------------------------------------------------------------------------ stored runs


def rewritten(**new):
    """The members of the file with some replaced or added; None takes one away. The checksum stays."""

    def change(content):
        with np.load(io.BytesIO(content)) as file:
            members = {name: file[name] for name in file.files}
        stream = io.BytesIO()
        np.savez(stream, **{name: value for name, value in (members | new).items() if value is not None})
        return stream.getvalue()

    return change


def with_header(**new):
    def change(content):
        with np.load(io.BytesIO(content)) as file:
            header = json.loads(file["header"].item()) | new
        return rewritten(header=np.array(json.dumps(header)))(content)

    return change


def compressed(content):
    with np.load(io.BytesIO(content)) as file:
        stream = io.BytesIO()
        np.savez_compressed(stream, **{name: file[name] for name in file.files})
    return stream.getvalue()


def edited(content):
    with np.load(io.BytesIO(content)) as file:
        return rewritten(states=file["states"] + 1e-12)(content)


def saved_by_numpy(**arrays):
    def change(content):
        stream = io.BytesIO()
        np.savez(stream, **arrays)
        return stream.getvalue()

    return change


def declared(shape):
    text = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def flipped(content):
    place = content.index(np.ascontiguousarray(np.eye(2)).tobytes())  # the frozen features
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


class Evil:
    def __reduce__(self):
        return os.mkdir, ("created-by-pickle",)


FOREIGN = "was not written by Trajectory.save; allowed"
DAMAGED = "is damaged or not a file of this package .*; next: "
BAD_RUNS = {
    "empty": (lambda content: b"", DAMAGED),
    "first half": (lambda content: content[: len(content) // 2], DAMAGED),
    "last half": (lambda content: content[len(content) // 2 :], DAMAGED),
    "without its last byte": (lambda content: content[:-1], DAMAGED),
    "a flipped bit": (flipped, DAMAGED),
    "text": (lambda content: b"steps = 4\n", DAMAGED),
    "one array": (lambda content: declared("()") + bytes(8), DAMAGED),
    "foreign npz": (saved_by_numpy(a=np.zeros(3)), FOREIGN),
    "foreign npz with a header": (saved_by_numpy(header=np.array("{}")), FOREIGN),
    "header of numbers": (saved_by_numpy(header=np.zeros(3)), DAMAGED),
    "foreign zip": (lambda content: zipped(**{"readme.txt": "x"}), FOREIGN),
    "zip with text inside": (lambda content: zipped(**{"header.npy": "x"}), DAMAGED),
    "empty zip": (lambda content: zipped(), FOREIGN),
    "compressed": (compressed, "is damaged .*header is compressed or longer than the file"),
    "pickle": (lambda content: pickle.dumps(Evil()), DAMAGED),
    "pickled objects": (
        rewritten(states=np.array([Evil()], dtype=object)),
        "states is not an array of plain numbers",
    ),
    "pickled header": (
        rewritten(header=np.array([Evil()], dtype=object)),
        "header is not an array of plain numbers",
    ),
    "newer schema": (
        with_header(schema=99),
        "has schema 99; allowed: up to 1 in this version; next: install a newer ufm",
    ),
    "other format": (with_header(format="ufm sweep shard"), FOREIGN),
    "no schema": (with_header(schema=None), "its schema is None"),
    "wrong hash": (
        with_header(checksum="0" * 64),
        "was changed after it was written .its checksum differs.; next: simulate",
    ),
    "edited array": (edited, "was changed after it was written"),
    "array left out": (rewritten(fit=None), "was changed after it was written"),
    "array added": (rewritten(more=np.zeros(2)), "was changed after it was written"),
    "complex array": (rewritten(fit=np.zeros(5, complex)), "fit is not an array of plain numbers"),
    "structured array": (rewritten(fit=np.zeros(5, [("a", float)])), "fit is not an array of plain numbers"),
    "array of text": (rewritten(fit=np.array(["x"])), "holds arrays that are not real numbers; next"),
    "body of another kind": (with_header(body=[]), "does not hold the arrays with their description; next"),
    "10^12 numbers": (
        lambda content: zipped(**{"header.npy": declared("(1000000000000,)")}),
        r"another size than its shape \(1000000000000,\)",
    ),
    "shape beyond int64": (
        lambda content: zipped(**{"header.npy": declared("(99999999999999999, 99999)")}),
        "another size than its shape",
    ),
    "shape below 0": (lambda content: zipped(**{"header.npy": declared("(-1,)")}), "header is not an array"),
    "code for a shape": (
        lambda content: zipped(**{"header.npy": declared("(__import__('os').mkdir('x'),)")}),
        "header is not an array",
    ),
}


@pytest.mark.parametrize("case", BAD_RUNS)
def test_a_bad_stored_run_is_one_sentence(saved, monkeypatch, case):
    monkeypatch.chdir(saved.parent)
    change, sentence = BAD_RUNS[case]
    saved.write_bytes(change(saved.read_bytes()))
    with pytest.raises(StorageError, match=sentence) as caught:
        ufm.load(saved)
    assert is_one_sentence(str(caught.value)), str(caught.value)
    assert os.listdir(saved.parent) == ["run.npz"]


STATS, PROVENANCE = {"seconds": 1.0}, {"software": {}}
FORGED = {
    "stats of text": ({"stats": {"seconds": "long"}}, "stats.seconds is 'long' instead of a number"),
    "stats of lists": ({"stats": {"undecided_signs": []}}, "stats.undecided_signs is "),
    "stats that are none": ({"stats": [1]}, "stats"),
    "software of text": ({"provenance": {"software": "all"}}, "provenance.software is 'all'"),
    "software of numbers": ({"provenance": {"software": {"numpy": [2]}}}, "provenance.software is"),
}


@pytest.mark.parametrize("case", FORGED)
def test_what_a_file_says_beside_its_arrays_is_checked_too(trajectory, tmp_path, case):
    new, sentence = FORGED[case]
    body, arrays = storage._packed(trajectory)
    path = tmp_path / "run.npz"
    storage.write_archive(path, storage.TRAJECTORY, body | new, arrays)
    with pytest.raises(StorageError, match=sentence) as caught:
        ufm.load(path)
    assert is_one_sentence(str(caught.value)), str(caught.value)


# ------------------------------------------------------------------------------------------ folders


def written(place, trajectory):
    """Everything that writes, each to a place of its own below the folder."""
    problem, optimizer = ufm.UFM(classes=2, width=2), ufm.GD(0.1)
    toml = place.parent / "run.toml"
    return {
        "save": lambda: trajectory.save(place / "run.npz"),
        "sweep": lambda: ufm.sweep(problem, optimizer, steps=4, out=place / "sweep"),
        "sweep in it": lambda: ufm.sweep(problem, optimizer, steps=4, out=place),
        "bytes": lambda: storage.write_atomically(place / "new" / "table.csv", b"x" * 5000),
        "toml": lambda: cli._run(
            cli._parser().parse_args(["run", str(toml), "--out", str(place / "run.npz")])
        ),
    }


WRITERS = ("save", "sweep", "sweep in it", "bytes", "toml")


@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, trajectory, writer):
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "run.toml").write_text(TOML)
    old = trajectory.save(folder / "run.npz").read_bytes() if writer == "save" else None
    with (
        full_disk(1000),
        pytest.raises(
            StorageError, match=r"cannot be written .File too large.; allowed: a place with room"
        ) as caught,
    ):
        written(folder, trajectory)[writer]()
    assert is_one_sentence(str(caught.value))
    assert not list(folder.rglob("*.part"))
    left = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    assert left == ([folder / "run.npz"] if old else [])
    assert old is None or (folder / "run.npz").read_bytes() == old


@pytest.mark.skipif(not UNWRITABLE.is_dir(), reason="needs a folder in which even root cannot write")
@pytest.mark.parametrize("writer", WRITERS)
def test_a_folder_that_cannot_be_written_is_one_sentence(monkeypatch, tmp_path, trajectory, writer):
    (tmp_path / "run.toml").write_text(TOML)
    calls = written(UNWRITABLE, trajectory)
    if writer == "toml":
        out = str(UNWRITABLE / "run.npz")
        calls["toml"] = lambda: cli._run(
            cli._parser().parse_args(["run", str(tmp_path / "run.toml"), "--out", out])
        )
    with pytest.raises(StorageError, match=r"cannot be|no folder|no permission") as caught:
        calls[writer]()
    assert str(UNWRITABLE) in str(caught.value)
    assert is_one_sentence(str(caught.value)), str(caught.value)


@pytest.mark.parametrize("writer", WRITERS)
def test_a_file_in_the_place_of_a_folder_is_one_sentence(tmp_path, trajectory, writer):
    place = tmp_path / "file"
    place.write_text("mine")
    (tmp_path / "run.toml").write_text(TOML)
    with pytest.raises(StorageError, match=r"cannot be|no folder") as caught:
        written(place, trajectory)[writer]()
    assert is_one_sentence(str(caught.value)), str(caught.value)
    assert place.read_text() == "mine"
    assert sorted(os.listdir(tmp_path)) == ["file", "run.toml"]
