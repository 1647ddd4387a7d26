"""Trajectories on disk: every bit comes back, bad files get one sentence, and nothing is half-written."""

import errno
import json
import os
import pickle
import stat
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ufm
from ufm import storage
from ufm.environment import Provenance
from ufm.errors import IncompatibleError, StorageError
from ufm.run import Run
from ufm.storage import load, save
from ufm.trajectory import End, Status, Trajectory

ARRAYS = ("steps", "states", "fit", "penalty")
END = ("theta", "m", "v", "unit")


def made(run: Run, records: int = 3, unit: bool = False, seed: int = 0) -> Trajectory:
    """A trajectory of the right shapes with random numbers in it."""
    rng = np.random.default_rng(seed)
    problem, dtype = run.problem, run.dtype
    size, total = problem.size, sum(int(np.prod(shape)) for shape in problem.shapes.values())
    draw = lambda *shape: rng.standard_normal(shape).astype(dtype)  # noqa: E731
    return Trajectory(
        run=run,
        steps=np.arange(records, dtype=np.int64) * 5,
        states=draw(records, size),
        fit=rng.random(records),
        penalty=rng.random(records),
        status=Status("interrupted", 10, "Ctrl-C was pressed"),
        stats={"seconds": 0.1 + 0.2, "undecided_signs": np.int64(3), "rate": np.float64(np.inf)},
        provenance=Provenance(run),
        end=End(10, draw(total), draw(size), draw(size), rng.random(size if unit else 0)),
    )


RUN = Run(
    ufm.UFM(classes=3, width=4, per_class=(2, 1, 1), features=ufm.SimplexETF(), bias=True),
    ufm.Signum(ufm.Rates(np.linspace(0.1, 0.01, 20)), 0.9),
    ufm.Coupled(W=1e-3),
    ufm.Start(ufm.Gaussian(0.1), W=ufm.Given(np.arange(12.0).reshape(3, 4))),
    20,
    seed=7,
    record=ufm.Every(5),
    batch=2,
)


def assert_same(a: Trajectory, b: Trajectory) -> None:
    """Every field equal, arrays with their dtype and bits."""
    assert a.run == b.run
    assert (a.status, a.end.step) == (b.status, b.end.step)
    pairs = [(getattr(a, name), getattr(b, name)) for name in ARRAYS]
    pairs += [(getattr(a.end, name), getattr(b.end, name)) for name in END]
    for x, y in pairs:
        assert x.dtype == y.dtype
        assert x.shape == y.shape
        assert x.tobytes() == y.tobytes()
    assert dict(a.stats) == dict(b.stats)
    assert dict(a.provenance) == dict(b.provenance)


@pytest.fixture
def saved(tmp_path):
    return save(made(RUN), tmp_path / "run.npz")


@pytest.mark.parametrize("unit", [False, True])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_everything_comes_back_bit_for_bit(tmp_path, dtype, unit):
    trajectory = made(replace(RUN, dtype=dtype), unit=unit)
    path = save(trajectory, tmp_path / "run.npz")
    again = load(path)
    assert_same(trajectory, again)
    assert again.run.trajectory is None
    assert again.judged().trajectory is again
    assert np.array_equal(again["W"], trajectory["W"])
    assert again.provenance["run"]["seed"] == 7


@given(
    values=st.lists(st.floats(width=64), min_size=6, max_size=6),
    reason=st.text(st.characters(codec="utf-8"), max_size=20),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_number_and_any_text_comes_back(tmp_path, values, reason):
    run = Run(ufm.UFM(2, 1, features=ufm.Given([[1.0, 2.0]])), ufm.GD(0.1), init=ufm.Zeros(), steps=10)
    states = np.array(values).reshape(3, 2)
    trajectory = replace(made(run), states=states, status=Status("diverged", 10, reason))
    again = load(save(trajectory, tmp_path / "run.npz"))
    assert again.states.tobytes() == states.tobytes()
    assert again.status == trajectory.status


def test_saving_twice_gives_the_same_bytes(tmp_path):
    trajectory = made(RUN)
    a, b = (
        save(trajectory, tmp_path / "a.npz"),
        save(load(save(trajectory, tmp_path / "c.npz")), tmp_path / "b.npz"),
    )
    assert a.read_bytes() == b.read_bytes()


def test_numpy_opens_the_file_without_pickle(saved):
    with np.load(saved, allow_pickle=False) as members:
        header = json.loads(members["header"].item())
        assert header["schema"] == storage.SCHEMA
        assert members["states"].shape == (3, RUN.problem.size)


def test_methods_and_plain_strings_work_too(tmp_path):
    run = made(RUN)
    assert_same(run, ufm.load(str(run.save(str(tmp_path / "run.npz")))))


def test_file_permissions_follow_the_umask(saved):
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(saved.stat().st_mode) == 0o666 & ~mask


def test_a_link_keeps_pointing_to_its_file(saved, tmp_path):
    link = tmp_path / "link.npz"
    link.symlink_to(saved)
    save(made(RUN, records=2), link)
    assert link.is_symlink()
    assert len(load(saved)) == 2


@pytest.mark.parametrize(
    "failure", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt(), MemoryError()]
)
@pytest.mark.parametrize("at", ["write", "fsync", "replace"])
def test_a_failed_save_leaves_the_old_file_and_nothing_else(saved, monkeypatch, failure, at):
    before = saved.read_bytes()

    def fail(*arguments, **options):
        raise failure

    written = []

    def fail_late(stream, array, allow_pickle):
        written.append(array)
        if len(written) == 3:
            raise failure
        stream.write(b"part")

    if at == "write":
        monkeypatch.setattr(np.lib.format, "write_array", fail_late)
    else:
        monkeypatch.setattr(os, at, fail)
    expected = StorageError if isinstance(failure, OSError) else type(failure)
    with pytest.raises(expected):
        save(made(RUN, records=2), saved)
    monkeypatch.undo()
    assert saved.read_bytes() == before
    assert os.listdir(saved.parent) == [saved.name]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch):
    # The temporary file is opened on a device without room.
    monkeypatch.setattr(
        "builtins.open", lambda file, mode: os.fdopen(os.open("/dev/full", os.O_WRONLY), "wb")
    )
    with pytest.raises(StorageError, match="No space left on device"):
        save(made(RUN), tmp_path / "run.npz")
    monkeypatch.undo()
    assert os.listdir(tmp_path) == []


def test_places_that_cannot_be_written(tmp_path):
    with pytest.raises(StorageError, match="is a folder"):
        save(made(RUN), tmp_path)
    with pytest.raises(StorageError, match="no folder"):
        save(made(RUN), tmp_path / "missing" / "run.npz")
    assert os.listdir(tmp_path) == []


def test_what_a_file_cannot_hold_is_refused_before_writing(tmp_path):
    trajectory = replace(made(RUN), stats={"seconds": object()})
    with pytest.raises(StorageError, match=r"stats\.seconds is <object"):
        save(trajectory, tmp_path / "run.npz")
    with pytest.raises(StorageError, match="dtype complex128"):
        save(replace(made(RUN), fit=np.zeros(3, complex)), tmp_path / "run.npz")
    assert os.listdir(tmp_path) == []


def test_bytes_are_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = storage.write_atomically(tmp_path / "new" / "folder" / "table.csv", b"a,b\n")
    assert path.read_bytes() == b"a,b\n"

    def fail(*arguments):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StorageError, match="Input/output error"):
        storage.write_atomically(path, b"other")
    assert path.read_bytes() == b"a,b\n"
    assert os.listdir(path.parent) == ["table.csv"]
    with pytest.raises(StorageError, match=r"table\.csv is no folder"):
        storage.write_atomically(path / "x", b"")


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(StorageError, match="does not exist"):
        load(tmp_path / "run.npz")
    with pytest.raises(StorageError, match="is a folder"):
        load(tmp_path)
    with pytest.raises(StorageError, match=r"cannot be read|damaged"):
        load("a\0b")


def test_every_truncation_is_refused(saved):
    whole = saved.read_bytes()
    for length in [*range(0, 200, 7), *np.linspace(200, len(whole) - 1, 60).astype(int)]:
        saved.write_bytes(whole[:length])
        with pytest.raises(StorageError) as caught:
            load(saved)
        assert str(saved) in str(caught.value)
        assert "next:" in str(caught.value)


def test_a_flipped_bit_never_changes_a_loaded_run_silently(saved):
    trajectory, whole = made(RUN), saved.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for position in rng.integers(0, len(whole), 300):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << int(rng.integers(8))
        saved.write_bytes(damaged)
        try:
            assert_same(trajectory, load(saved))  # bits that mean nothing, such as dates in the zip
        except StorageError:
            refused += 1
    assert refused > 200


def rewritten(path, change):
    """Change header and members of a file as a careless program would, with a checksum that is right."""
    with zipfile.ZipFile(path) as archive:
        header = storage._header(path, archive)
        names = [name.removesuffix(".npy") for name in archive.namelist()]
        arrays = {name: storage._member(archive, name) for name in names if name != "header"}
    change(header, arrays)
    if header.get("checksum") and isinstance(header.get("body"), dict):
        header["checksum"] = storage._checksum(header["body"], arrays)
    np.savez(path, header=np.array(json.dumps(header)), **arrays)


def put(**new):
    return lambda header, arrays: arrays.update(new)


def body(**new):
    return lambda header, arrays: header["body"].update(new)


def run_part(key, **new):
    return lambda header, arrays: header["body"]["run"][key].update(new)


def wrong_content(header, arrays):
    name = next(name for name in arrays if name.startswith("content."))
    arrays[name] = arrays[name] + 1.0


def no_content(header, arrays):
    for name in [name for name in arrays if name.startswith("content.")]:
        del arrays[name]


CHANGES = [
    (lambda header, arrays: header.update(schema=2), "has schema 2; allowed: up to 1.*newer ufm"),
    (lambda header, arrays: header.update(schema="1"), "its schema is '1'"),
    (lambda header, arrays: header.update(schema=0), "its schema is 0"),
    (lambda header, arrays: header.update(schema=True), "its schema is True"),
    (lambda header, arrays: header.update(format="x"), "was not written by"),
    (lambda header, arrays: header.update(body=[]), "does not hold the arrays"),
    (lambda header, arrays: header.update(checksum=""), "checksum"),
    (lambda header, arrays: arrays.pop("fit"), "does not hold the arrays"),
    (put(extra=np.zeros(1)), "does not hold the arrays"),
    (put(states=np.zeros((3, 1))), r"states has shape \(3, 1\)"),
    (put(fit=np.zeros(2)), r"fit has shape \(2,\)"),
    (put(steps=np.array([0, 10, 5])), "increasing"),
    (put(steps=np.array([0.0, 5.0, 10.0])), "whole numbers"),
    (put(steps=np.array([["0", "5", "10"]])), "not real numbers"),
    (put(states=np.zeros((3, 15), np.float32)), "float32 instead of float64"),
    (put(**{"end.theta": np.zeros(3)}), "end.theta has shape"),
    (put(**{"end.m": np.zeros((15, 1))}), "end.m has shape"),
    (body(status={"name": "finished", "step": 10, "reason": ""}), "'finished'"),
    (body(status={"name": "completed"}), "does not fit together"),
    (body(status=3), "does not fit together"),
    (body(status={"name": "completed", "step": 21, "reason": ""}), "status.step is 21; allowed: .*<= 20"),
    (body(status={"name": "completed", "step": 1e30, "reason": ""}), r"status.step is 1e\+30"),
    (body(status={"name": "completed", "step": 5, "reason": ""}), "status.step is 5; allowed: .*>= 10"),
    (body(end={}), "does not fit together"),
    (body(end={"step": -1}), "end.step is -1"),
    (body(end={"step": 9}), "end.step is 9 instead of 10"),
    (body(end={"step": 1e30}), r"end.step is 1e\+30"),
    (put(**{"end.unit": np.zeros(14)}), "end.unit has shape"),
    (put(**{"end.theta": np.zeros(31, ">f8")}), "end.theta has dtype >f8"),
    (put(**{"end.v": np.zeros(15, int)}), "end.v has dtype int64"),
    (put(steps=np.array([0, 5, 10], ">i8")), "whole numbers"),
    (body(stats=1), "does not fit together"),
    (body(run=None), "not allowed"),
    (body(run={}), "steps is missing"),
    (lambda header, arrays: header["body"]["run"].update(optimizer=None), "optimizer is missing"),
    (run_part("problem", type="__main__"), "problem.type is '__main__'"),
    (run_part("problem", width=-1), "UFM.width is -1"),
    (run_part("problem", width=5), "has shape"),
    (wrong_content, "digest of the stored array"),
    (no_content, "digest of a stored array"),
]


@pytest.mark.parametrize(("change", "sentence"), CHANGES)
def test_a_changed_file_is_refused_even_with_a_right_checksum(saved, change, sentence):
    rewritten(saved, change)
    with pytest.raises(StorageError, match=sentence) as caught:
        load(saved)
    assert str(caught.value).count("\n") == 0
    assert str(saved) in str(caught.value)


def test_rewriting_without_a_change_is_fine(saved):
    rewritten(saved, lambda header, arrays: None)
    assert_same(load(saved), made(RUN))


def huge_shape(archive):
    text = repr({"descr": "<f8", "fortran_order": False, "shape": (2**58,)}).encode()
    archive.writestr("huge.npy", b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text)


def duplicate(archive):
    name = archive.namelist()[-1]
    with pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr(name, archive.read(name))


@pytest.mark.parametrize("add", [huge_shape, duplicate, lambda archive: archive.writestr("readme.txt", "x")])
def test_members_that_are_not_ours_are_refused(saved, add):
    with zipfile.ZipFile(saved, "a") as archive:
        add(archive)
    with pytest.raises(StorageError, match="damaged or not a file of this package"):
        load(saved)


@pytest.mark.parametrize("depth", [300, 900, 1500, 100_000])
def test_a_deep_header_is_refused(saved, depth):
    head = json.dumps({"format": storage.FORMAT, "schema": 1, "checksum": "", "body": {}})
    deep = head.replace("{}", '{"a": ' * depth + "1" + "}" * depth)
    with zipfile.ZipFile(saved) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
        arrays = {name: storage._member(archive, name) for name in names if name != "header"}
    np.savez(saved, header=np.array(deep), **arrays)
    with pytest.raises(StorageError):
        load(saved)


def test_a_special_file_is_neither_replaced_nor_waited_for(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    for name in ("fifo", "loop"):
        with pytest.raises(StorageError, match="a pipe, a device or a loop of links; allowed"):
            save(made(RUN), tmp_path / name)
        with pytest.raises(StorageError, match=r"a pipe or device|cannot be read"):
            load(tmp_path / name)
    assert stat.S_ISFIFO((tmp_path / "fifo").stat().st_mode)
    assert sorted(os.listdir(tmp_path)) == ["fifo", "loop"]


def test_a_replaced_file_keeps_its_mode(saved):
    saved.chmod(0o640)
    save(made(RUN, records=2), saved)
    assert stat.S_IMODE(saved.stat().st_mode) == 0o640


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (None, "path is None"),
        (3, "path is 3"),
        ("x" * 300, "name too long"),
        ("a\0b", "NUL"),
        ("\ud800", "NUL"),
    ],
)
def test_names_that_no_file_has_are_one_sentence(tmp_path, monkeypatch, name, sentence):
    monkeypatch.chdir(tmp_path)
    for call in (load, lambda path: save(made(RUN), path), lambda path: storage.write_atomically(path, b"")):
        with pytest.raises(ufm.UfmError, match=f"(?i){sentence}"):
            call(name)
    assert os.listdir(tmp_path) == []


class Evil:
    def __reduce__(self):
        return os.mkdir, ("created-by-pickle",)


def test_pickled_objects_are_not_opened(saved, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez(saved, header=np.array([Evil()], dtype=object))
    with pytest.raises(StorageError, match="damaged or not a file of this package"):
        load(saved)
    saved.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(StorageError):
        load(saved)
    assert not os.path.exists("created-by-pickle")


def test_files_of_other_programs(saved):
    np.savez(saved, a=np.zeros(3))
    with pytest.raises(StorageError, match=r"was not written by Trajectory\.save"):
        load(saved)
    np.savez(saved, header=np.array("not json"))
    with pytest.raises(StorageError, match="damaged"):
        load(saved)
    np.savez(saved, header=np.array("[" * 100_000))
    with pytest.raises(StorageError, match="damaged"):
        load(saved)
    with open(saved, "wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(StorageError, match="damaged"):
        load(saved)


def user_step(theta, g, m, v, lr, t, p):
    return theta - lr * g, m, v


def test_a_run_with_a_function_is_saved_and_loaded_with_it(tmp_path):
    optimizer = ufm.Elementwise(user_step, 0.1)
    trajectory = made(replace(RUN, optimizer=optimizer))
    path = save(trajectory, tmp_path / "run.npz")
    assert "optimizer is" in trajectory.provenance["rerun"]
    with pytest.raises(IncompatibleError, match="the same object again as optimizer="):
        load(path)
    with pytest.raises(IncompatibleError, match="what the file was made with"):
        load(path, optimizer=ufm.Elementwise(user_step, 0.2))
    assert_same(load(path, optimizer=optimizer), trajectory)


def test_what_the_file_holds_is_not_replaced(saved):
    assert_same(load(saved, problem=RUN.problem), made(RUN))
    with pytest.raises(IncompatibleError, match="the file holds"):
        load(saved, optimizer=ufm.GD(0.1))


SIMULATED = [
    (ufm.GD(0.1), {}),
    (ufm.Momentum(ufm.Rates(np.full(200, 0.1)), 0.9, True), {"batch": 2}),
    (ufm.Signum(0.01, 0.9), {"dtype": "float32"}),
    (ufm.Adam(0.01), {"record": ufm.LogSpaced(10), "init": ufm.Start(W=ufm.Zeros(), H=ufm.Gaussian(0.1))}),
]


@pytest.mark.parametrize(("optimizer", "options"), SIMULATED)
def test_a_loaded_run_resumes_bit_for_bit(tmp_path, optimizer, options):
    problem, decay = ufm.UFM(classes=3, width=4, per_class=2), ufm.Coupled(1e-3)
    whole = ufm.simulate(problem, optimizer, decay, steps=200, **options)
    part = ufm.simulate(problem, optimizer, decay, steps=200, callback=stop_at_once, **options)
    assert part.status.name == "stopped"
    assert 0 < part.end.step < 200
    again = load(save(part, tmp_path / "run.npz")).resume()
    assert again.status.name == "completed"
    assert np.array_equal(again.end.theta, whole.end.theta)
    assert np.array_equal(again.steps, whole.steps)
    assert again.states.tobytes() == whole.states.tobytes()
    assert_same(load(save(whole, tmp_path / "whole.npz")), whole)


def stop_at_once(step, blocks):
    return True


def residual(Z, targets, R):
    value = 0.0
    for k in range(Z.shape[0]):
        for i in range(Z.shape[1]):
            R[k, i] = Z[k, i] - targets[k, i]
            value += 0.5 * R[k, i] ** 2
    return value


def test_a_users_loss_is_given_again(tmp_path):
    problem = ufm.UFM(classes=3, width=4, loss=residual)
    trajectory = ufm.simulate(problem, ufm.GD(0.1), steps=10)
    path = trajectory.save(tmp_path / "run.npz")
    with pytest.raises(IncompatibleError, match="the same object again as problem="):
        load(path)
    with pytest.raises(IncompatibleError, match="what the file was made with"):
        load(path, problem=ufm.UFM(classes=3, width=4))
    again = load(path, problem=problem)
    assert_same(again, trajectory)
    longer = ufm.simulate(problem, ufm.GD(0.1), steps=15)
    assert again.resume(steps=15).states.tobytes() == longer.states.tobytes()
