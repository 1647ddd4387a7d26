"""Kill, Ctrl-C, a cold cache for two, clocks that go back: files are the old ones or the new ones, and nobody reads a
traceback.

One process imports the package and forks a child for every fault, so that a fault costs milliseconds.
"""

import importlib
import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime

import numpy as np
import pytest

import ufm
from ufm import storage
from ufm.sweeps.folder import SHARD

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes as on Unix")

TOML = """
steps = {steps}

[problem]
type = "UFM"
classes = 2
width = 2

[optimizer]
type = "GD"
lr = 0.1
"""

# A child writes; `event` counts what it does to its file, and kills it at the one asked for, by SIGKILL from within.
KILLING = """
import io, json, os, random, signal, sys, time
import ufm
from ufm import cli, storage

folder, kills, at_random = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
os.chdir(folder)
problem, optimizer = ufm.UFM(classes=2, width=2), ufm.GD(0.1)
old, new = (ufm.simulate(problem, optimizer, steps=steps) for steps in (40, 60))

def event(name):
    global left
    left -= 1
    if left == 0:
        os.write(told, name.encode())
        os.kill(os.getpid(), signal.SIGKILL)

class Watched(io.FileIO):
    def write(self, data):
        half = len(data) // 2
        super().write(data[:half])
        event("write")
        super().write(data[half:])
        return len(data)

def hooked(name, function):
    def call(*arguments):
        event("before " + name)
        function(*arguments)
        event("after " + name)
    return call

def install():
    storage.open = lambda path, mode: io.BufferedWriter(Watched(path, mode.replace("b", "")), 600)
    os.fsync, os.replace = hooked("fsync", os.fsync), hooked("replace", os.replace)

def save():
    new.save("saved.npz")

def run():
    cli.main(["run", "run.toml", "--out", "run.npz", "--overwrite"])

def sweep():
    ufm.sweep(problem, ufm.GD, lr=[0.1, 0.2], steps=[4, 5, 6], out="sweep")

def child(job, count, watched):
    global told, left
    reading, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        left = count
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if watched:
            install()
        while True:
            job()
            if watched:
                os._exit(0)
    os.close(told)
    if not watched:
        time.sleep(random.uniform(0, 0.05))
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    with open(reading) as pipe:
        return pipe.read(), os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL

jobs = {"save": save, "run": run, "sweep": sweep}
open("run.toml", "w").write(RUN_TOML)
found = []
random.seed(0)
for number in range(kills + at_random):
    watched = number < kills
    name = list(jobs)[number % 3]
    count = 1 + (number // 3) * 7 // 2 if watched else 0
    old.save("saved.npz")
    old.save("run.npz")
    if name == "sweep" and number % 2:
        import shutil; shutil.rmtree("sweep", ignore_errors=True)
    before = {path: open(path, "rb").read() for path in ("saved.npz", "run.npz")}
    where, killed = child(jobs[name], count, watched)
    lengths = {}
    for path, content in before.items():
        same = open(path, "rb").read() == content
        lengths[path] = "old" if same else "new" if len(ufm.load(path)) == 61 else "broken"
    shards = []
    for shard in os.listdir("sweep") if os.path.isdir("sweep") else ():
        if shard.endswith(".npz"):
            from ufm.sweeps.folder import SHARD
            from pathlib import Path
            storage.read_archive(Path("sweep") / shard, SHARD)
            shards.append(shard)
    found.append({"job": name, "at": where, "killed": killed, "files": lengths, "shards": len(shards)})
data = ufm.sweep(problem, ufm.GD, lr=[0.1, 0.2], steps=[4, 5, 6], out="sweep")
print(json.dumps({"kills": found, "completed": int((data["status"] == "completed").sum())}))
""".replace("RUN_TOML", repr(TOML.format(steps=60)))


@pytest.mark.parametrize(("kills", "at_random"), [(12, 3), pytest.param(60, 30, marks=pytest.mark.slow)])
def test_a_killed_writer_leaves_the_old_file_or_the_new_one(tmp_path, python, kills, at_random):
    """Broken files raise in the process that looks at them."""
    found = json.loads(
        python(KILLING, arguments=[str(tmp_path), str(kills), str(at_random)]).splitlines()[-1]
    )
    killed = [kill for kill in found["kills"] if kill["killed"]]
    inside = [kill for kill in killed if kill["at"] == "write"]
    print(f"{len(killed)} kills, {len(inside)} of them inside a write; by job and place:",
          sorted({(kill["job"], kill["at"] or "at random") for kill in killed}))  # fmt: skip
    assert len(killed) >= (50 if kills > 12 else 9)
    assert len(inside) >= (20 if kills > 12 else 4)
    assert {kill["job"] for kill in inside} == {"save", "run", "sweep"}
    assert all(set(kill["files"].values()) <= {"old", "new"} for kill in found["kills"])
    assert found["completed"] == 6
    names = [path.name for path in tmp_path.iterdir()]
    parts = [name for name in names if name not in ("run.toml", "run.npz", "saved.npz", "sweep")]
    assert parts
    assert all(name.startswith((".run.npz.", ".saved.npz.")) and name.endswith(".part") for name in parts)
    assert not list((tmp_path / "sweep").glob("*.part"))  # the sweep that went on has swept them
    old = time.time() - 2 * storage.STALE_SECONDS
    for part in parts:
        os.utime(tmp_path / part, (old, old))
    for name in ("run.npz", "saved.npz"):
        ufm.load(tmp_path / name).save(tmp_path / name)
    assert not list(tmp_path.glob(".*.part"))


def test_a_temporary_file_in_use_is_not_removed(tmp_path):
    """Nor one of another file, nor a file of the user's with a similar name."""
    trajectory = ufm.simulate(ufm.UFM(2, 2), ufm.GD(0.1), steps=1)
    old = time.time() - 2 * storage.STALE_SECONDS
    fresh = tmp_path / f".run.npz.{'0' * 12}.part"
    others = [
        tmp_path / f".other.npz.{'0' * 12}.part",
        tmp_path / ".run.npz.mine.part",
        tmp_path / "run.npz.part",
    ]
    for path in (fresh, *others):
        path.write_bytes(b"")
    for path in others:
        os.utime(path, (old, old))
    trajectory.save(tmp_path / "run.npz")
    assert all(path.exists() for path in (fresh, *others))


# Every command in a child of its own, interrupted after some milliseconds.
INTERRUPTING = """
import json, os, random, signal, sys, time, warnings
import ufm
from ufm import cli
warnings.simplefilter("ignore", ResourceWarning)  # as by default: an import cut short leaves its file to the collector
import figures.__main__ as figures_main, proofs_check.__main__ as proofs_main

folder, times = sys.argv[1], int(sys.argv[2])
os.chdir(folder)
open("long.toml", "w").write(RUN_TOML)
open("grid.toml", "w").write(GRID_TOML)
run = ufm.simulate(ufm.UFM(2, 2), ufm.GD(0.1), steps=2_000_000, record=ufm.LogSpaced(20))
run.save("run.npz")
ufm.simulate(ufm.UFM(10, 16, 5), ufm.GD(0.1), ufm.Coupled(0.01), steps=20_000).save("many.npz")
commands = {
    "demo": (cli.main, ["demo", "--quick"], 0.8), "run": (cli.main, ["run", "long.toml", "--overwrite"], 0.8),
    "sweep": (cli.main, ["sweep", "grid.toml", "--resume"], 0.3), "compare": (cli.main, ["compare", "many.npz"], 0.3),
    "rerun": (cli.main, ["rerun", "run.npz"], 0.1),
    "resume": (cli.main, ["resume", "run.npz", "--steps", "2000000000", "--out", "on.npz", "--overwrite"], 0.8),
    "claims": (cli.main, ["claims"], 0.1), "environment": (cli.main, ["environment"], 0.02),
    "proofs_check": (lambda arguments: with_arguments(proofs_main, arguments), [], 1.0),
    "figures": (lambda arguments: with_arguments(figures_main, arguments), ["--quick", "--out", "figures"], 1.0),
}

def with_arguments(module, arguments):
    sys.argv = ["", *arguments]
    return module.command()

def interrupted(main, arguments, delay):
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(writing, 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.write(writing, b"\\n")
        code = main(arguments)
        sys.stderr.flush()
        os._exit(code)
    os.close(writing)
    os.read(reading, 1)
    time.sleep(delay)
    try:
        os.kill(pid, signal.SIGINT)
    except ProcessLookupError:
        pass
    with open(reading) as pipe:
        text = pipe.read()
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), text

random.seed(1)
found = []
for name, (main, arguments, longest) in commands.items():
    for number in range(times):
        code, text = interrupted(main, arguments, longest * random.uniform(0.02, 1))
        found.append((name, code, text))
print(json.dumps(found))
"""
RECORD = "[record]\ntype = 'LogSpaced'\ncount = 5\n"
INTERRUPTING = INTERRUPTING.replace("RUN_TOML", repr(TOML.format(steps=100_000_000) + RECORD))
INTERRUPTING = INTERRUPTING.replace("GRID_TOML", repr(TOML.format(steps=3_000_000) + RECORD))


@pytest.mark.parametrize("times", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_ctrl_c_in_any_command_is_one_sentence(tmp_path, python, times):
    output = python(INTERRUPTING, {"MPLBACKEND": "Agg"}, arguments=[str(tmp_path), str(times)])
    by_command = {}
    for name, code, text in json.loads(output.splitlines()[-1]):
        assert code in (0, 130), (name, code, text)  # 0: it had ended before
        if code == 130:
            last = text.splitlines()[-1]
            assert "Traceback" not in text, (name, text)
            assert "interrupted" in last, (name, text)
            assert last.startswith(("ufm: ", "proofs_check: ", "figures: "))
        by_command[name] = by_command.get(name, 0) + (code == 130)
    print("interrupted:", by_command)
    assert len(by_command) == 10
    assert sum(count > 0 for count in by_command.values()) >= (8 if times == 1 else 10), by_command
    for path in tmp_path.rglob("*.npz"):
        if path.parent == tmp_path:
            ufm.load(path)
        elif path.parent.name == "grid":
            storage.read_archive(path, SHARD)
    assert not list(tmp_path.rglob("*.part"))


WARMING = "import ufm; print(ufm.simulate(ufm.UFM(2, 2), ufm.GD(0.1), steps=5).states.tobytes().hex())"


@pytest.mark.slow
def test_two_processes_warm_one_cache_at_once(tmp_path):
    env = {**os.environ, "UFM_CACHE_DIR": str(tmp_path)}
    start = lambda: subprocess.Popen(  # noqa: E731
        [sys.executable, "-W", "error", "-c", WARMING],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    both = [start(), start()]
    ends = [process.communicate(timeout=300) for process in both]
    ends.append(start().communicate(timeout=300))  # and what they left serves a third
    assert [errors for _, errors in ends] == ["", "", ""]
    assert len({output for output, _ in ends}) == 1
    assert ufm.simulate(ufm.UFM(2, 2), ufm.GD(0.1), steps=5).states.tobytes().hex() == ends[0][0].strip()


@pytest.mark.skipif(not os.path.isdir("/sys"), reason="needs a folder in which even root cannot write")
def test_a_cache_folder_that_cannot_be_written_is_done_without(python):
    found = python("from ufm.kernels import cache; print(cache.folder())", {"UFM_CACHE_DIR": "/sys/ufm"})
    assert found.strip() == "None"


def test_a_clock_that_goes_back_changes_nothing_but_the_time(tmp_path, monkeypatch):
    class Backwards(datetime):
        hours = 20

        @classmethod
        def now(cls, zone=None):
            cls.hours -= 5
            return datetime(2001, 1, 1, cls.hours, tzinfo=zone or UTC)

    monkeypatch.setattr(importlib.import_module("ufm.environment"), "datetime", Backwards)
    monkeypatch.setattr(time, "time", lambda: -1e9)
    run = ufm.simulate(ufm.UFM(2, 2), ufm.GD(0.1), steps=5)
    assert run.save(tmp_path / "run.npz").exists()
    longer = ufm.load(tmp_path / "run.npz").resume(9)
    assert run.provenance["time"] == "2001-01-01T15:00:00+00:00"
    assert longer.provenance["time"] == "2001-01-01T10:00:00+00:00"
    assert longer.stats["seconds"] >= run.stats["seconds"] > 0
    assert np.array_equal(longer.states, ufm.simulate(ufm.UFM(2, 2), ufm.GD(0.1), steps=9).states)
    longer.save(tmp_path / "run.npz")
    assert len(ufm.load(tmp_path / "run.npz")) == 10
