"""Compiled kernels on disk: warm in the next process, never stale, never in the way."""

import os
import shutil
import textwrap
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

RUN = """
import ufm
from numba.core import event

with event.install_recorder("numba:compile") as recorder:
    for problem, rule, options in [
        (ufm.UFM(4, 5, 2), ufm.Momentum(0.1, 0.9), {}),
        (ufm.UFM(4, 5, 2, loss=ufm.CrossEntropy(smoothing=0.1)), ufm.Adam(0.1), {"batch": 3}),
        (ufm.UFM(4, 4, features=ufm.SimplexETF()), ufm.SignGD(100.0), {"init": ufm.Zeros()}),
    ]:
        traj = ufm.simulate(problem, rule, ufm.Decoupled(1e-6), steps=50, **options)
    assert traj.stats["exponents_from"] > 0
    problem.gradient({"W": traj["W"][-1]})
print(len(recorder.buffer), repr(float(traj.loss[-1])))
"""

TWICE = """
import numpy as np
import ufm

state = {"W": np.eye(3, 4), "H": np.eye(4, 3)}
print(ufm.UFM(3, 4).gradient(state)["W"][0, 0])
"""


def files(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def stamps(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def warm(tmp_path_factory, call):
    """A cache filled by one process, and what that process printed."""
    folder = tmp_path_factory.mktemp("cache")
    return folder, call(RUN, {"UFM_CACHE_DIR": str(folder)})


@pytest.fixture(scope="session")
def call(python):
    """The words that code prints in a new process."""
    return lambda *arguments, **options: python(*arguments, **options).split()


def test_a_second_process_compiles_nothing(warm, call):
    folder, (events, loss) = warm
    assert int(events) > 0
    before = files(folder)
    assert any(path.suffix == ".nbc" for path in before)
    for _ in range(2):
        assert call(RUN, {"UFM_CACHE_DIR": str(folder)}) == ["0", loss]
    assert files(folder) == before


def copied_package(tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(ROOT / "ufm", root / "ufm", ignore=shutil.ignore_patterns("__pycache__"))
    return root


def test_an_edit_in_any_source_file_is_seen(tmp_path, call):
    """A helper in another file than the kernel that is cached: the gradient must change with it."""
    root, folder = copied_package(tmp_path), tmp_path / "cache"
    env = {"UFM_CACHE_DIR": str(folder)}
    first = float(call(TWICE, env, root)[0])
    assert len(stamps(folder)) == 1
    chain = root / "ufm" / "kernels" / "chain.py"
    text = chain.read_text()
    line = "product(D, here, 0, H, start, 1, grad, weights, rows, B, inner)"
    assert text.count(line) == 1
    indent = " " * (text.index(line) - text.rindex("\n", 0, text.index(line)) - 1)
    chain.write_text(text.replace(line, f"{line}\n{indent}grad[weights] *= 2.0"))
    assert float(call(TWICE, env, root)[0]) == 2 * first
    assert len(stamps(folder)) == 2
    chain.write_text(text)
    assert float(call(TWICE, env, root)[0]) == first
    assert len(stamps(folder)) == 2


def test_the_stamp_covers_every_source_file(tmp_path, call):
    root = copied_package(tmp_path)
    ask = "from ufm.kernels import cache; print(cache.stamp(), len(cache.sources()))"
    before, count = call(ask, root=root)
    paths = sorted((root / "ufm").rglob("*.py"))
    assert int(count) == len(paths) == len(list((ROOT / "ufm").rglob("*.py")))
    for path in (paths[0], paths[-1], root / "ufm" / "kernels" / "updates.py"):
        text = path.read_text()
        path.write_text(text + "\n# another state\n")
        assert call(ask, root=root)[0] != before
        path.write_text(text)
    assert call(ask, root=root)[0] == before
    (paths[0].parent / "added.py").write_text("")
    assert call(ask, root=root)[0] != before
    (paths[0].parent / "added.py").unlink()
    (paths[0].parent / "demo.py").rename(paths[0].parent / "renamed.py")
    assert call(ask, root=root)[0] != before


def test_old_stamps_are_pruned(tmp_path, call):
    """All but the newest three folders of other source states go, once unused for an hour; nothing else does."""
    now = time.time()
    for age in range(6):
        place = tmp_path / f"{age:024d}"
        place.mkdir()
        (place / "kernel.nbc").write_text("")
        os.utime(place, (now - 7200 - age, now - 7200 - age))
    for name in ("0" * 23 + "x", "someone else's"):
        (tmp_path / name).mkdir()
    fresh = tmp_path / f"{9:024d}"
    fresh.mkdir()
    (tmp_path / "note.txt").write_text("")
    ask = "from ufm.kernels import cache; print(cache.folder().name)"
    current = call(ask, {"UFM_CACHE_DIR": str(tmp_path)})[0]
    left = set(stamps(tmp_path))
    assert {current, fresh.name, "someone else's", "note.txt"} <= left
    assert len([name for name in left if len(name) == 24 and name != current]) == 3
    assert f"{5:024d}" not in left


def test_folders_in_use_are_not_pruned(tmp_path, call):
    for age in range(6):
        (tmp_path / f"{age:024d}").mkdir()
    call("from ufm.kernels import cache; cache.folder()", {"UFM_CACHE_DIR": str(tmp_path)})
    assert len(stamps(tmp_path)) == 7


def test_runs_without_any_folder_to_write(tmp_path, call):
    """Root may write anywhere, so a file stands where the folder should be; the package's own folder stays clean."""
    blocked = tmp_path / "file"
    blocked.write_text("")
    root = copied_package(tmp_path)
    code = "from ufm.kernels import cache\nassert cache.folder() is None\n" + TWICE
    before = files(root)
    cold = call(code, {"UFM_CACHE_DIR": str(blocked)}, root)
    assert files(root) == before
    assert blocked.read_text() == ""
    # neither a home nor a place for temporary files
    nowhere = {
        "XDG_CACHE_HOME": str(blocked),
        "HOME": str(blocked),
        "TMPDIR": str(blocked),
        "UFM_CACHE_DIR": "",
    }
    code = code.replace("from ufm", "import tempfile; tempfile.tempdir = '" + str(blocked) + "'\nfrom ufm", 1)
    assert call(code, nowhere, root) == cold
    assert files(root) == before


def test_a_home_that_cannot_be_written_falls_back_to_temporary_files(tmp_path, call):
    blocked, temporary = tmp_path / "file", tmp_path / "tmp"
    blocked.write_text("")
    temporary.mkdir()
    ask = "from ufm.kernels import cache; print(cache.folder())"
    env = {"XDG_CACHE_HOME": str(blocked), "TMPDIR": str(temporary), "UFM_CACHE_DIR": ""}
    (found,) = call(ask, env)
    assert Path(found).parents[1] == temporary


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write to read-only folders"
)
def test_an_install_that_is_read_only(tmp_path, call):
    root = copied_package(tmp_path)
    for path in [root, *root.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        call(TWICE, {"UFM_CACHE_DIR": str(tmp_path / "cache")}, root)
        assert stamps(tmp_path / "cache")
    finally:
        for path in [root, *root.rglob("*")]:
            path.chmod(0o755 if path.is_dir() else 0o644)


def test_import_loads_no_slow_library(call):
    code = """
import sys
import ufm

problem = ufm.DUFM(10, 30, 3, loss="ce", features=ufm.Given([[1.0] * 10] * 30))
ufm.Momentum(ufm.StepDecay(0.1), 0.9), ufm.Mixed(1e-3, 1e-3), ufm.LogSpaced(300), ufm.Start(W=ufm.Zeros())
slow = "numba llvmlite sympy matplotlib xarray pandas scipy.linalg scipy.special tqdm mpmath".split()
print([name for name in slow if name in sys.modules])
"""
    assert " ".join(call(code)) == "[]"


def test_settings_of_numba_are_left_as_they_were(warm, call):
    code = (
        "import numba, ufm\nbefore = numba.config.CACHE_DIR\n"
        "ufm.simulate(ufm.UFM(4, 5, 2), ufm.Momentum(0.1, 0.9), steps=2)\nassert numba.config.CACHE_DIR == before"
    )
    call(code, {"UFM_CACHE_DIR": str(warm[0])})


@pytest.mark.parametrize(
    ("ending", "damage"),
    [
        ("nbi", "cut"),
        ("nbc", "flip"),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (("nbi", "empty"), ("nbi", "flip"), ("nbc", "empty"), ("nbc", "cut"))
        ),
    ],
)
def test_a_damaged_cache_does_not_stop_a_run(tmp_path, call, ending, damage):
    environment = {"UFM_CACHE_DIR": str(tmp_path)}
    expected = call(TWICE, environment)
    for path in tmp_path.rglob(f"*.{ending}"):
        data = bytearray(path.read_bytes())
        if damage == "flip":
            data[: len(data) // 2] = bytes(255 - byte for byte in data[: len(data) // 2])
        path.write_bytes({"empty": b"", "cut": bytes(data[: len(data) // 2]), "flip": bytes(data)}[damage])
    assert call(TWICE, environment) == expected
    assert call(TWICE, environment) == expected


def test_ctrl_c_while_compiling_is_neither_lost_nor_a_traceback_of_numba(tmp_path, call):
    code = """
    import os, signal
    from ufm.kernels import contract, updates

    def interrupt():
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    try:
        with contract.interrupt_deferred():
            interrupt()
            print("inside")
    except KeyboardInterrupt:
        print("after", signal.getsignal(signal.SIGINT) is before)
    """
    assert call(textwrap.dedent(code), {"UFM_CACHE_DIR": str(tmp_path)}) == ["inside", "after", "True"]
