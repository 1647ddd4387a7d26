"""Whether the proofs and tests of a room notice a mutant of its module.

The package is copied once and imported from the copy, all but `ufm.theory`. For every mutant a child is forked that
finds the mutated module in the copy: it starts at once, and reads kernels compiled for the unchanged sources.
The quickest doctests, tests and proofs go first, and the first that fails ends it.
"""

from __future__ import annotations

import ast
import fcntl
import hashlib
import importlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from tests.mutants.mutations import Mutant

ROOT = Path(__file__).resolve().parents[2]
THEORY = Path("ufm/theory")
COPIED = ("ufm", "proofs_check", "figures", "tests", "pyproject.toml", "README.md")
IMPORTED = (  # before the first mutant; nothing that imports ufm.theory, as ufm.metrics does
    "pytest", "sympy", "mpmath", "scipy.optimize", "scipy.integrate",
    "ufm", "ufm.simulate", "ufm.problems", "ufm.initial", "ufm.kernels.loop",
)  # fmt: skip
# with a mutant a test may compute this many times as long as without, and some seconds more; all of them together too
PATIENCE, SECONDS = 3.0, 20.0


@dataclass(frozen=True)
class Verdict:
    """What became of a mutant: killed, survived or timeout, by which test, after how many seconds."""

    mutant: Mutant
    name: str
    by: str
    seconds: float


def killers(theory: Path, module: str) -> tuple[list[str], list[str]]:
    """Names of the rooms whose proofs and tests are asked about a module, and its further test files.

    A result is judged by its own room; a module that only serves results, whose name begins with an underscore, by
    the rooms that import it and by a test file of its own name.
    """
    if not module.startswith("_"):
        return [module], []
    served = {path.stem for path in theory.glob("*.py") if module in _imported(path)}
    while private := {name for name in served if name.startswith("_")} - {module}:
        served -= private
        for name in private:
            served |= {path.stem for path in theory.glob("*.py") if name in _imported(path)} - {module}
    own = [str(path) for path in theory.parents[1].glob(f"tests/**/test{module}.py")]
    return sorted(served - {"__init__"}), own


def _imported(path: Path) -> set[str]:
    """Modules of `ufm.theory` that a file imports by name."""
    found = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.ImportFrom) and node.module == "ufm.theory":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ufm.theory."):
            found.add(node.module.rpartition(".")[2])
    return found


@dataclass
class Known:
    """What is known of the unchanged tests of a call, by test.

    Parameters
    ----------
    seconds : dict of str to float
        Time that each takes.
    calls : dict of str to list of str
        Functions ``module.name`` of `ufm.theory` that each calls; those that imports call have the name "".
    """

    seconds: dict[str, float] = field(default_factory=dict)
    calls: dict[str, list[str]] = field(default_factory=dict)

    def total(self) -> float:
        """Seconds of all tests."""
        return sum(self.seconds.values())

    def reach(self, test: str, function: str) -> bool:
        """Whether a test may notice a change of a function."""
        return not (self.calls and function) or any(
            function in self.calls.get(name, [function]) for name in ("", test)
        )

    def reached(self, function: str) -> bool:
        """Whether any test may."""
        return any(self.reach(test, function) for test in self.seconds)


class _Quickest:
    """Pytest plugin: only tests that call a function, the quickest first; keeps the first failure."""

    def __init__(self, known: Known, function: str) -> None:
        self.known, self.function, self.failed = known, function, ""

    def pytest_collection_modifyitems(self, items: list) -> None:
        items[:] = [item for item in items if self.known.reach(item.nodeid, self.function)]
        items.sort(key=lambda item: self.known.seconds.get(item.nodeid, 0.0))

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Seconds of computing: what else the machine does makes no test late."""
        if self.known.seconds:
            limit = SECONDS + PATIENCE * self.known.seconds.get(nodeid, 0.0)
            signal.setitimer(signal.ITIMER_PROF, limit)

    def pytest_runtest_logreport(self, report) -> None:
        if report.failed:
            self.failed = self.failed or report.nodeid

    def pytest_collectreport(self, report) -> None:
        if report.failed:
            self.failed = self.failed or f"import of {report.nodeid}"


class _Observer(_Quickest):
    """Pytest plugin: what the unchanged tests call, and their seconds."""

    def __init__(self) -> None:
        super().__init__(Known(), "")
        self.found, self.called = Known(), set()
        self.modules = {str(path): path.stem for path in THEORY.resolve().glob("*.py")}
        sys.settrace(self._note)

    def _note(self, frame: Any, event: str, argument: Any) -> None:
        module = self.modules.get(frame.f_code.co_filename)
        if module:
            self.called.add(f"{module}.{frame.f_code.co_qualname.partition('.<locals>')[0]}")

    def _keep(self, name: str) -> None:
        self.found.calls[name] = sorted(self.called)
        self.called.clear()

    def pytest_collection_finish(self) -> None:
        self._keep("")

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self._keep(nodeid)

    def pytest_runtest_logreport(self, report) -> None:
        super().pytest_runtest_logreport(report)
        self.found.seconds[report.nodeid] = self.found.seconds.get(report.nodeid, 0.0) + report.duration


class Judge:
    """A copy of the tree, and how long its unchanged tests and proofs take.

    Copies keep their place: numba knows compiled kernels by the path of their sources.
    """

    def __init__(self) -> None:
        self.folder, self._lock = _free_place()
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        for name in COPIED:
            source, target = ROOT / name, self.folder / name
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(source, target)
        os.chdir(self.folder)
        sys.path[:] = [
            str(self.folder),
            *(place for place in sys.path if Path(place or ".").resolve() != ROOT),
        ]
        sys.dont_write_bytecode = True
        os.environ.update(PYTHONPATH=str(self.folder), PYTHONDONTWRITEBYTECODE="1", MPLBACKEND="Agg")
        for name in IMPORTED:
            importlib.import_module(name)
        from ufm.kernels.cache import folder, source_digest

        folder()  # stamped with the unchanged sources
        early = [name for name in sys.modules if name.startswith("ufm.theory.")]
        if early or not str(Path(sys.modules["ufm"].__file__)).startswith(str(self.folder)):
            raise RuntimeError(f"imported before the first mutant: {early or sys.modules['ufm'].__file__}")
        self._digest = source_digest()
        self._notes = self.folder.with_suffix(".json")
        self._known: dict[str, Known] = {}
        if self._notes.exists():
            self._known = {key: Known(**known) for key, known in json.loads(self._notes.read_text()).items()}

    def verdict(self, mutant: Mutant) -> Verdict:
        """Run the killers of one mutant until the first that fails.

        Raises
        ------
        RuntimeError
            If the unchanged module does not pass.
        """
        rooms, own = killers(THEORY, mutant.module)
        path = THEORY / f"{mutant.module}.py"
        begin = time.perf_counter()
        source = path.read_bytes()
        for call in _calls(str(path), rooms, own):
            known = self._unchanged(call)
            if not known.reached(mutant.function):
                continue
            path.write_bytes(mutant.applied(source))
            try:
                plugin = _Quickest(known, mutant.function)
                code, by = _forked(call, plugin, SECONDS + PATIENCE * known.total(), ["-x"])
            finally:
                path.write_bytes(source)
            if code != 0:
                return Verdict(
                    mutant, "timeout" if code is None else "killed", by, time.perf_counter() - begin
                )
        return Verdict(mutant, "survived", "", time.perf_counter() - begin)

    def _unchanged(self, call: _Call) -> Known:
        """What each test takes and calls, known from an earlier run if nothing has changed."""
        files = b"".join(Path(name).read_bytes() for name in (*call.files, *call.proofs))
        key = f"{call.name} {hashlib.sha256(self._digest.encode() + files).hexdigest()}"
        if key not in self._known:
            code, by = _forked(call, None, 1800.0, [])
            if code != 0:
                output = Path("output.txt").read_text()
                raise RuntimeError(f"{call.name} does not pass unchanged: {by}\n{output}")
            self._known[key] = Known(**json.loads(Path("known.json").read_text()))
            self._notes.write_text(json.dumps({key: asdict(known) for key, known in self._known.items()}))
        return self._known[key]


def _free_place() -> tuple[Path, Any]:
    """A folder for a copy that no other process uses, and the lock that keeps it."""
    base = Path(tempfile.gettempdir()) / f"ufm-mutants-{getattr(os, 'getuid', lambda: 'user')()}"
    base.mkdir(exist_ok=True)
    for number in count():
        lock = (base / f"{number}.lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            continue
        return base / str(number), lock
    raise AssertionError


@dataclass(frozen=True)
class _Call:
    """One call of pytest."""

    name: str
    room: str
    files: tuple[str, ...]
    proofs: tuple[str, ...] = ()


def _calls(module: str, rooms: Sequence[str], own: Sequence[str]) -> Iterator[_Call]:
    """The own doctests first, then tests of all rooms at once, then the rooms, those with few tests first."""
    yield _Call(module, "", (module, *own))
    general = ("tests/theory/test_number_types.py", "tests/theory/test_predictions.py")
    yield _Call("all rooms", "", general)
    for room in sorted(rooms, key=lambda room: Path(f"tests/theory/test_{room}.py").stat().st_size):
        yield _Call(
            room,
            room,
            (f"tests/theory/test_{room}.py", "tests/mutants/proofs.py"),
            (f"proofs_check/{room}.py",),
        )


def _forked(
    call: _Call, plugin: _Quickest | None, limit: float, options: Sequence[str]
) -> tuple[int | None, str]:
    """Exit code of pytest in a child (None: too slow) and the first failure; without a plugin tests are observed."""
    answer = Path("answer.txt")
    answer.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        _child(call, plugin, answer, options)
    deadline = time.perf_counter() + limit
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        if time.perf_counter() > deadline or os.getppid() == 1:  # too slow, or nobody waits any longer
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None, f"{limit:.0f} s"
        time.sleep(0.01)
    if os.waitstatus_to_exitcode(status) == -signal.SIGPROF:
        return None, "a test that does not end"
    failed = answer.read_text() if answer.exists() else "the interpreter broke"
    return os.waitstatus_to_exitcode(status), failed


def _child(call: _Call, plugin: _Quickest | None, answer: Path, options: Sequence[str]) -> None:
    """Run pytest in this forked process and end it."""
    os.setsid()
    sink = os.open("output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(sink, 1)
    os.dup2(sink, 2)
    code = 70
    try:
        import pytest

        os.environ["UFM_MUTANT_ROOM"] = call.room
        plugin = plugin or _Observer()
        fixed = ["-p", "no:cacheprovider", "-p", "no:xdist", "--tb=short"]
        code = int(pytest.main([*fixed, *options, *call.files], plugins=[plugin]))
        code = 0 if code == pytest.ExitCode.NO_TESTS_COLLECTED else code
        answer.write_text(plugin.failed)
        if isinstance(plugin, _Observer):
            sys.settrace(None)
            Path("known.json").write_text(json.dumps(asdict(plugin.found)))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
