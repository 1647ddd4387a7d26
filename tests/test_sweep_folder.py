"""The folder of a sweep: killed at any moment it continues with the same bits; damage and misuse get a sentence."""

import errno
import multiprocessing
import os
import signal
import threading
import warnings
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import ufm
from ufm import storage
from ufm.errors import IncompatibleError, InvalidProblemError, LostWorkerError, StorageError
from ufm.sweeps import folder, plan, planning, workers
from ufm.sweeps.shards import compute

SMALL = ufm.UFM(classes=3, width=4)
OPTIONS = {
    "problem": SMALL, "optimizer": [ufm.GD, ufm.SignGD], "lr": [0.1, 0.2], "width": [3, 4, 5], "seed": [0, 1],
    "steps": 20, "metrics": ["loss", "nc0", "nc3"],
}  # fmt: skip
SHARDS = 6


@pytest.fixture(scope="module")
def expected():
    return ufm.sweep(**OPTIONS)


def names(path: Path) -> list[str]:
    return sorted(file.name for file in path.iterdir() if file.suffix == ".npz")


def forbid_computing(monkeypatch):
    def refuse(shard):
        raise AssertionError("a finished shard was computed again")

    monkeypatch.setattr(workers, "compute", refuse)


def test_a_finished_sweep_is_read_from_its_folder(tmp_path, expected, monkeypatch):
    assert ufm.sweep(**OPTIONS, out=tmp_path).identical(expected)
    assert len(names(tmp_path)) == SHARDS == len(plan(**OPTIONS).shards)
    forbid_computing(monkeypatch)
    assert ufm.sweep(**OPTIONS, out=tmp_path).identical(expected)
    assert plan(**OPTIONS).estimate(out=tmp_path).finished == SHARDS


KILLS = """
import os, random, signal, sys, time, warnings
from pathlib import Path
import ufm
from ufm import storage
from tests.test_sweep_folder import OPTIONS, SHARDS, names

warnings.simplefilter("error")  # a damaged shard would warn
root, kills, inside = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
chance = random.Random(kills)
expected = ufm.sweep(**OPTIONS)


def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def die_in_a_write():
    write = chance.randrange(3)
    where = chance.choice(["fsync", "replace", "_sync_folder", "write_array"])
    owner = {"fsync": os, "replace": os, "_sync_folder": storage, "write_array": storage.np.lib.format}[where]
    true, calls = getattr(owner, where), iter(range(10**6))

    def dying(*arguments, **options):
        if next(calls) == write:
            if where == "write_array":
                arguments[0].write(b"half of an array")
            die()
        return true(*arguments, **options)

    setattr(owner, where, dying)


def sweep(out, within, wait):
    child = os.fork()
    if child:
        if not within:
            time.sleep(wait)
            os.kill(child, signal.SIGKILL)
        return os.waitpid(child, 0)[1]
    if within:
        die_in_a_write()
    ufm.sweep(**OPTIONS, out=out, workers=chance.choice([1, 2]))
    os._exit(0)


begin = time.perf_counter()
ufm.sweep(**OPTIONS)
usual = time.perf_counter() - begin
died, died_inside, folders = 0, 0, 0
while died < kills:
    folders += 1
    out, before = root / str(folders), []
    out.mkdir()
    while True:
        within = died_inside < inside
        status = sweep(out, within, chance.random() * 1.5 * usual)
        now = names(out)
        assert set(before) <= set(now), "a finished shard was lost"
        before = now
        if not status:
            break
        assert os.WTERMSIG(status) == signal.SIGKILL, status
        died, died_inside = died + 1, died_inside + within
    assert ufm.sweep(**OPTIONS, out=out).identical(expected), "other bits"
    assert len(names(out)) == SHARDS, "a shard is there twice"
    assert not list(out.glob(".*.part")), "something half-written is left"
print(died, died_inside, folders)
"""


def kill(python, path: Path, kills: int, inside: int) -> None:
    root = Path(__file__).resolve().parents[1]
    died, died_inside, _ = map(
        int, python(KILLS, root=root, arguments=[str(path), str(kills), str(inside)]).split()
    )
    assert died >= kills
    assert died_inside >= inside


def test_a_sweep_killed_at_any_moment_ends_with_the_same_bits(python, tmp_path):
    kill(python, tmp_path, 5, 3)


@pytest.mark.slow
def test_a_sweep_killed_fifty_times_ends_with_the_same_bits(python, tmp_path):
    kill(python, tmp_path, 50, 25)


@pytest.mark.parametrize("position", [0, 100, 0.5, -1])
def test_a_damaged_shard_is_named_and_computed_again(tmp_path, expected, position):
    ufm.sweep(**OPTIONS, out=tmp_path)
    victim = tmp_path / names(tmp_path)[2]
    good = victim.read_bytes()
    at = int(position * len(good)) if isinstance(position, float) else position
    damaged = bytearray(good)
    damaged[at] ^= 0x40
    victim.write_bytes(damaged)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert ufm.sweep(**OPTIONS, out=tmp_path).identical(expected)
    assert victim.read_bytes() in (good, bytes(damaged))
    if victim.read_bytes() == good:
        assert victim.name in str(caught[0].message)
        assert "computed again" in str(caught[0].message)


@pytest.mark.parametrize("length", [0, 10, 0.5, 0.99])
def test_a_shard_cut_short_is_named_and_computed_again(tmp_path, expected, length):
    ufm.sweep(**OPTIONS, out=tmp_path)
    victim = tmp_path / names(tmp_path)[0]
    good = victim.read_bytes()
    victim.write_bytes(good[: int(length * len(good)) if isinstance(length, float) else length])
    with pytest.warns(UserWarning, match=f"{victim.name}.*runs are computed again"):
        assert ufm.sweep(**OPTIONS, out=tmp_path).identical(expected)
    assert victim.read_bytes() == good


def test_the_shard_of_another_sweep_under_the_name_of_this_one_is_refused(tmp_path, expected):
    ufm.sweep(**OPTIONS, out=tmp_path / "here")
    ufm.sweep(**{**OPTIONS, "metrics": ["nc0"]}, out=tmp_path / "there")
    victim = tmp_path / "here" / names(tmp_path / "here")[0]
    victim.write_bytes((tmp_path / "there" / names(tmp_path / "there")[0]).read_bytes())
    with pytest.warns(UserWarning, match="does not hold"):
        assert ufm.sweep(**OPTIONS, out=tmp_path / "here").identical(expected)


CHANGES = [
    {"lr": [0.1, 0.2000000001]}, {"steps": 21}, {"seed": [0, 2]}, {"metrics": ["loss", "nc0"]},
    {"decay": ufm.Coupled(1e-9)}, {"init": ufm.Gaussian(0.2)}, {"record": ufm.Every(3)}, {"batch": 2},
    {"dtype": "float32"}, {"loss": "mse"}, {"claims": ["zhao2026.thm3.2"]},
    {"metrics": {"loss": ufm.metrics.nc1, "nc0": ufm.metrics.nc0, "nc3": ufm.metrics.nc3}},
]  # fmt: skip


def test_changed_arguments_have_other_files():
    def files(options) -> set[str]:
        planned = plan(**options)
        known = folder.Names(planned.grid, planned.kept)
        found = [known.of(shard) for shard in planned.shards]
        assert len(set(found)) == len(found)
        return set(found)

    seen = files(OPTIONS)
    assert files(OPTIONS) == seen
    for change in CHANGES:
        now = files({**OPTIONS, **change})
        same = now & seen
        assert not same, change
        seen |= now


def test_changed_sources_have_other_files(monkeypatch):
    planned = plan(**OPTIONS)
    before = folder.Names(planned.grid, planned.kept).of(planned.shards[0])
    monkeypatch.setattr(folder, "software", lambda: {"sources": "others"})
    assert folder.Names(planned.grid, planned.kept).of(planned.shards[0]) != before


def test_two_different_sweeps_share_a_folder_without_mixing(tmp_path, expected):
    other = {**OPTIONS, "seed": [5, 6]}
    ufm.sweep(**other, out=tmp_path)
    assert ufm.sweep(**OPTIONS, out=tmp_path).identical(expected)
    assert len(names(tmp_path)) == 2 * SHARDS
    assert ufm.sweep(**other, out=tmp_path).identical(ufm.sweep(**other))


def test_a_second_sweep_in_a_folder_at_work_is_refused(tmp_path):
    planned = plan(**OPTIONS)
    place = folder.Folder(tmp_path, folder.Names(planned.grid, planned.kept))
    with place.locked(), pytest.raises(StorageError, match="in use by another sweep"):
        ufm.sweep(**OPTIONS, out=tmp_path)
    ufm.sweep(**OPTIONS, out=tmp_path)


@pytest.mark.parametrize(("where", "room"), [("fsync", 4), ("write_array", 40)])
def test_a_full_disk_leaves_nothing_half_written_and_loses_nothing(
    tmp_path, expected, monkeypatch, where, room
):
    owner = {"fsync": os, "write_array": storage.np.lib.format}[where]
    true, calls = getattr(owner, where), iter(range(1000))

    def full(*arguments, **options):
        if next(calls) >= room:
            raise OSError(errno.ENOSPC, "No space left on device")
        return true(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(owner, where, full)
        with pytest.raises(StorageError, match="No space left on device"):
            ufm.sweep(**OPTIONS, out=tmp_path)
    assert not list(tmp_path.glob(".*.part"))
    assert 0 < len(names(tmp_path)) < SHARDS
    kept = {name: (tmp_path / name).read_bytes() for name in names(tmp_path)}
    assert ufm.sweep(**OPTIONS, out=tmp_path).identical(expected)
    assert all((tmp_path / name).read_bytes() == data for name, data in kept.items())


def test_a_folder_that_cannot_be_used_gets_a_sentence(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be a folder"):
        ufm.sweep(**OPTIONS, out=tmp_path / "file" / "inside")
    (tmp_path / "locked").mkdir()
    (tmp_path / "locked" / ".lock").mkdir()  # as good as no permission, for whoever runs the tests
    with pytest.raises(StorageError, match="cannot be written to"):
        ufm.sweep(**OPTIONS, out=tmp_path / "locked")
    with pytest.raises(InvalidProblemError, match=r"sweep.out is 3; allowed"):
        ufm.sweep(**OPTIONS, out=3)


def own_metric(run):
    return run.loss


def test_functions_of_the_users_own_cannot_be_kept_in_a_folder(tmp_path):
    with pytest.raises(IncompatibleError, match="own_metric is a function of your own"):
        ufm.sweep(**{**OPTIONS, "metrics": [own_metric]}, out=tmp_path)

    def step(theta, g, m, v, lr, t, p):
        return theta - lr * g, m, v

    with pytest.raises(IncompatibleError, match=r"sweep.out cannot be used: optimizer is"):
        ufm.sweep(SMALL, [ufm.Elementwise(step, lr=0.1)], steps=3, out=tmp_path)
    assert not list(tmp_path.iterdir())


def test_results_that_do_not_fit_are_read_from_the_folder(tmp_path, expected, monkeypatch):
    monkeypatch.setattr(planning, "IN_MEMORY", 0)
    lazy = ufm.sweep(**OPTIONS, out=tmp_path)
    assert not lazy["nc0"].variable._in_memory
    places = {
        "optimizer": 1,
        "lr": [1, 0],
        "width": slice(None, None, 2),
        "seed": slice(0, 1),
        "record": slice(-3, None),
    }
    for name in expected:
        chosen = {dim: place for dim, place in places.items() if dim in expected[name].dims}
        assert lazy[name].isel(chosen).identical(expected[name].isel(chosen)), name
        assert (
            lazy[name]
            .isel(seed=np.array([1, 0]), width=2)
            .identical(expected[name].isel(seed=[1, 0], width=2))
        )
    assert lazy.load().identical(expected)


def test_results_that_fit_nowhere_are_refused_at_once(monkeypatch):
    monkeypatch.setattr(planning, "physical_bytes", lambda: 100)
    with pytest.raises(InvalidProblemError, match=r"or out=.* which leaves them on disk"):
        ufm.sweep(**OPTIONS)


def test_lazy_results_of_different_lengths(tmp_path, monkeypatch):
    options = {**OPTIONS, "steps": [5, 9]}
    whole = ufm.sweep(**options)
    monkeypatch.setattr(planning, "IN_MEMORY", 0)
    lazy = ufm.sweep(**options, out=tmp_path)
    assert lazy["loss"].isel(steps=[1, 0]).identical(whole["loss"].isel(steps=[1, 0]))
    os.remove(tmp_path / names(tmp_path)[0])
    with pytest.raises(StorageError, match="does not exist"):
        lazy["loss"].load()


class Backwards(Executor):
    """Computes what it was given in reverse order."""

    def __init__(self):
        self.waiting = []

    def submit(self, function, *arguments):
        self.waiting.append((Future(), function, arguments))
        if len(self.waiting) == SHARDS:
            for future, called, given in reversed(self.waiting):
                future.set_result(called(*given))
        return self.waiting[-1][0]


def test_the_order_of_shards_does_not_matter(expected):
    assert ufm.sweep(**OPTIONS, executor=Backwards()).identical(expected)


def test_processes_give_the_same_bits(expected):
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        assert ufm.sweep(**OPTIONS, executor=pool).identical(expected)
        with pytest.raises(IncompatibleError, match="workers is 2; allowed: None"):
            ufm.sweep(**OPTIONS, executor=pool, workers=2)
        with pytest.raises(IncompatibleError, match="cannot be sent to another process"):
            ufm.sweep(**{**OPTIONS, "metrics": {"a": lambda run: run.loss}}, executor=pool)


def test_a_worker_with_other_software_is_refused():
    shard = plan(**OPTIONS).shards[0]
    other = replace(shard, software={**shard.software, "numpy": "1.0"})
    with pytest.raises(IncompatibleError, match=r"a worker has numpy .*; allowed: 1.0"):
        compute(other)


class Dying(Executor):
    """An executor that loses a worker after a while."""

    def submit(self, function, *arguments):
        from concurrent.futures.process import BrokenProcessPool

        future = Future()
        self.given = getattr(self, "given", 0) + 1
        if self.given > 3:
            future.set_exception(BrokenProcessPool("a process was terminated abruptly"))
        else:
            future.set_result(function(*arguments))
        return future


def test_a_lost_worker_gets_a_sentence_and_the_sweep_continues(tmp_path, expected):
    with pytest.raises(
        LostWorkerError, match=r"a worker was lost .* [3-6] of 6 shards to do; finished ones are in"
    ):
        ufm.sweep(**OPTIONS, executor=Dying(), out=tmp_path)
    assert ufm.sweep(**OPTIONS, out=tmp_path).identical(expected)


def test_an_interrupted_sweep_continues(tmp_path, expected, monkeypatch):
    def interrupt(shard):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(workers, "compute", interrupt)
        with pytest.raises(KeyboardInterrupt):
            ufm.sweep(**OPTIONS, out=tmp_path)
    assert ufm.sweep(**OPTIONS, out=tmp_path).identical(expected)


def test_the_progress_bar_counts_runs(tmp_path, capsys):
    ufm.sweep(**OPTIONS, out=tmp_path, progress=True)
    assert "24.0/24.0" in capsys.readouterr().err


@pytest.mark.slow
def test_a_dask_cluster_gives_the_same_bits_even_when_it_loses_a_worker(tmp_path, expected):
    distributed = pytest.importorskip("distributed", reason="needs the extra 'cluster'")
    longer = {**OPTIONS, "optimizer": ufm.Signum, "beta": [0.0, 0.9], "seed": range(16), "steps": 3000}
    with (
        warnings.catch_warnings(),
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        warnings.simplefilter("ignore")  # of other packages at their start
        assert ufm.sweep(**OPTIONS, executor=client.get_executor(pure=False), out=tmp_path).identical(
            expected
        )
        assert len(names(tmp_path)) == SHARDS
        victim, *_ = client.run(os.getpid).values()
        timer = threading.Timer(1.0, lambda: os.kill(victim, signal.SIGKILL))
        timer.start()
        data = ufm.sweep(**longer, executor=client.get_executor(pure=False))
        timer.join()
    assert data.identical(ufm.sweep(**longer))
