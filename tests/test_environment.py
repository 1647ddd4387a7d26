"""What is known of the machine: readable, never personal, and no reason to fail."""

import getpass
import json
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

import ufm
from ufm.environment import Environment, Provenance, _pools, commit, environment, source, version
from ufm.run import Run

RUN = Run(ufm.UFM(3, 4, features=ufm.SimplexETF()), ufm.GD(0.1), None, ufm.Gaussian(0.1), 5)


def user_step(theta, g, m, v, lr, t, p):
    return theta - lr * g, m, v


def test_environment_names_versions_and_prints_one_line_each():
    found = environment()
    for name in (
        "ufm",
        "python",
        "numpy",
        "scipy",
        "numba",
        "llvmlite",
        "sympy",
        "xarray",
        "platform",
        "processor",
    ):
        assert found[name]
    assert found["blas"][0]["threads"] >= 1
    assert len(str(found).splitlines()) == len(found)
    assert str(found).splitlines()[0].split() == ["ufm", version()]


def test_environment_holds_what_a_bug_report_needs(monkeypatch, tmp_path):
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "0")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    found = environment()
    needed = (
        "ufm commit source python numpy scipy numba llvmlite platform processor cores memory encodings extras"
    )
    assert {*needed.split(), "usable cores", "blas", "thread variables", "numba cache"} <= found.keys()
    assert {"NUMBA_DISABLE_JIT": "0", "NUMBA_CACHE_DIR": "set"}.items() <= found["numba variables"].items()
    assert re.fullmatch(r"[\d.]+ GiB", found["memory"])
    assert str(tmp_path) not in str(found)


def test_printing_takes_any_entry():
    text = str(Environment({"a": None, "long": [], "c": [{"x": 1}, {"x": 2}]}))
    assert text.splitlines() == ["a     unknown", "long  none found", "c     x 1; x 2"]
    assert str(Environment()) == ""


def test_environment_imports_no_heavy_library():
    code = (
        "import sys; from ufm.environment import environment; environment();"
        "print([m for m in ('numba', 'sympy', 'matplotlib', 'xarray') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_provenance_is_plain_and_holds_the_run():
    found = dict(Provenance(RUN))
    assert json.loads(json.dumps(found)) == found
    assert found["rerun"] is None
    assert found["run"]["problem"]["features"] == {"type": "SimplexETF", "norm": "frobenius"}
    assert found["software"]["ufm"] == version()
    assert found["software"]["source"] == source()
    assert found["time"].endswith("+00:00")


def test_provenance_says_why_a_run_cannot_be_repeated_from_it():
    found = dict(Provenance(Run(RUN.problem, ufm.Elementwise(user_step, 0.1), None, ufm.Zeros(), 5)))
    assert "optimizer is Elementwise" in found["rerun"]
    assert found["run"]["optimizer"]["rerun"] is False
    json.dumps(found)


def test_provenance_names_no_person_machine_or_path():
    text = json.dumps(dict(Provenance(RUN))).lower()
    folders = (Path.home(), Path(ufm.__file__).parent, sys.prefix)
    for value in (platform.node(), getpass.getuser(), *map(str, folders)):
        assert not re.search(rf"(?<!\w){re.escape(value.lower())}(?!\w)", text)
    assert ".so" not in text


HASH = "0123456789abcdef0123456789abcdef01234567"


def git(folder, **files):
    for name, text in files.items():
        path = folder / ".git" / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.mark.parametrize(
    "files",
    [
        {"HEAD": HASH + "\n"},
        {"HEAD": "ref: refs/heads/main\n", "refs__heads__main": HASH + "\n"},
        {
            "HEAD": "ref: refs/heads/main\n",
            "packed-refs": f"# pack-refs\n{'f' * 40} refs/heads/x\n{HASH} refs/heads/main\n",
        },
    ],
)
def test_commit_is_read_from_the_files_of_a_checkout(tmp_path, files):
    assert commit(git(tmp_path, **files)) == HASH


def test_commit_of_a_worktree(tmp_path):
    git(
        tmp_path,
        **{"refs__heads__topic": HASH, "worktrees__w__HEAD": "ref: refs/heads/topic", "HEAD": "0" * 40},
    )
    (tmp_path / ".git/worktrees/w/commondir").write_text("../..\n")
    (tmp_path / "w").mkdir()
    (tmp_path / "w/.git").write_text(f"gitdir: {tmp_path}/.git/worktrees/w\n")
    assert commit(tmp_path / "w") == HASH


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"HEAD": ""},
        {"HEAD": "ref: refs/heads/main"},
        {"HEAD": "ref: refs/heads/main", "refs__heads__main": "not a hash"},
        {"HEAD": "é"},
    ],
)
def test_no_commit_is_none(tmp_path, files):
    assert commit(git(tmp_path, **files)) is None


def test_an_unreadable_cache_folder_is_unknown(monkeypatch):
    import ufm.kernels.cache as cache

    def fail():
        raise OSError("no")

    monkeypatch.setattr(cache, "folder", fail)
    assert environment()["numba cache"] is None
    monkeypatch.setattr(cache, "folder", lambda: Path.home() / "cache")
    assert environment()["numba cache"] == str(Path("~/cache"))
    monkeypatch.setattr(cache, "folder", lambda: "/elsewhere")
    assert environment()["numba cache"] == "/elsewhere"


def test_without_threadpoolctl_blas_is_empty(monkeypatch):
    _pools.cache_clear()
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    assert environment()["blas"] == []
