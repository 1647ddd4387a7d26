"""sweep(problem, optimizer, ...) -> xarray.Dataset: a run for every combination of the values given."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ufm.checks import flag, physical_bytes
from ufm.errors import invalid
from ufm.initial import Gaussian
from ufm.record import LogSpaced
from ufm.sweeps.axes import Zipped
from ufm.sweeps.folder import WRITERS, Folder, Names
from ufm.sweeps.grid import Grid
from ufm.sweeps.measures import RESERVED, Kept, claim_names, measures
from ufm.sweeps.shards import Arrays, Shard, seconds, shards
from ufm.sweeps.workers import computed, count

if TYPE_CHECKING:
    import xarray

    from ufm.sweeps.dataset import Layout
    from ufm.sweeps.estimate import Estimate

# Arguments that may be left out, as among the fields of a `Zipped`.
_OPTIONAL: Mapping[str, Any] = {
    "optimizer": None, "decay": None, "steps": None, "init": Gaussian(0.1), "seed": 0, "batch": None,
    "dtype": "float64",
}  # fmt: skip
IN_MEMORY = 2**30  # bytes of results above which a sweep with a folder leaves them there


@dataclass(frozen=True, eq=False)
class Plan:
    """A sweep before it is run; `plan` builds it.

    Parameters
    ----------
    grid : Grid
        Its cells.
    kept : Kept
        What is kept of every run.
    """

    grid: Grid
    kept: Kept

    @cached_property
    def shards(self) -> Sequence[Shard]:
        """Cells that are integrated together; they do not depend on what computes them."""
        return tuple(shards(self.grid, self.kept))

    @property
    def fits_in_memory(self) -> bool:
        """Whether all that is kept is held in memory, even if there is a folder to leave it in."""
        return self.layout.bytes <= IN_MEMORY

    @cached_property
    def layout(self) -> Layout:
        """Shapes of what is kept."""
        from ufm.sweeps.dataset import Layout

        return Layout(self.grid, self.kept)

    def estimate(self, *, workers: int | None = None, out: str | Path | None = None) -> Estimate:
        """Cells, shards, bytes and time of the sweep, from a short probe of each kind of run; `print` shows them."""
        from ufm.sweeps.estimate import estimate

        return estimate(self.grid, self.shards, self._folder(out), count(workers))

    def run(
        self,
        *,
        executor: Executor | None = None,
        workers: int | None = None,
        out: str | Path | None = None,
        progress: bool | None = None,
    ) -> xarray.Dataset:
        """Compute what is not finished yet and return the dataset; the arguments are those of `sweep`."""
        from ufm.sweeps.dataset import in_memory, on_disk, put

        if executor is None:
            count(workers)  # refused before the folder is made
        layout, folder = self.layout, self._folder(out)
        lazy = folder is not None and not self.fits_in_memory
        if not lazy and layout.bytes > physical_bytes():
            raise invalid(
                "sweep: GiB of results",
                layout.bytes >> 30,
                f"the {physical_bytes() >> 30} of this machine, or out=... which leaves them on disk",
            )
        full = self.kept.empty(0 if lazy else self.grid.size, layout.records)
        with folder.locked() if folder else nullcontext():
            for shard, arrays in self._results(folder, executor, workers, progress):
                if not lazy:
                    put(full, shard, arrays)
        return on_disk(layout, self.shards, folder) if lazy and folder else in_memory(layout, full)

    def _results(
        self, folder: Folder | None, executor: Executor | None, workers: int | None, progress: bool | None
    ) -> Iterator[tuple[Shard, Arrays]]:
        """Every shard with its results: what the folder has, then what is computed and at once kept there."""
        left = []
        for shard in self.shards:
            arrays = folder.read(shard) if folder else None
            if arrays is None:
                left.append(shard)
            else:
                yield shard, arrays
        kept = "none is kept"
        if folder:
            kept = f"finished ones are in {folder.path}, where the same sweep continues"
        left.sort(key=lambda shard: -len(shard.cells) * seconds(shard.first))  # short ones fill up the end
        done = self.grid.size - sum(len(shard.cells) for shard in left)
        writing: deque[Future[None]] = deque()
        with (
            _bar(progress, self.grid.size, done) as advance,
            ThreadPoolExecutor(WRITERS, "ufm-write") as writers,
        ):
            for shard, arrays in computed(left, executor, workers, kept):
                if folder:
                    writing.append(writers.submit(folder.write, shard, arrays))
                    if len(writing) > WRITERS:
                        writing.popleft().result()
                advance(len(shard.cells))
                yield shard, arrays
            for written in writing:
                written.result()

    def _folder(self, out: str | Path | None) -> Folder | None:
        return None if out is None else Folder(out, Names(self.grid, self.kept))


@contextmanager
def _bar(progress: bool | None, total: int, done: int) -> Iterator[Callable[[int], Any]]:
    """A function that counts runs on a progress bar with rate and time left; it shows nothing unless asked to."""
    if progress is None or not flag("sweep.progress", progress):
        yield lambda runs: None
        return
    from tqdm.auto import tqdm

    with tqdm(total=total, initial=done, unit="run", unit_scale=True) as bar:
        yield bar.update


def plan(
    problem: Any,
    optimizer: Any = None,
    decay: Any = None,
    *,
    steps: Any = None,
    init: Any = Gaussian(0.1),
    seed: Any = 0,
    record: Any = LogSpaced(100),
    batch: Any = None,
    dtype: Any = "float64",
    metrics: Any = None,
    claims: bool | str | Sequence[str] = (),
    **fields: Any,
) -> Plan:
    """Describe a sweep without running it; the arguments are those of `sweep`.

    Returns
    -------
    Plan
        ``.estimate()`` says what it would cost, ``.run()`` runs it.

    Examples
    --------
    >>> import ufm
    >>> planned = plan(ufm.UFM(3, 4), ufm.GD, lr=[0.1, 0.2], seed=range(10), steps=100)
    >>> planned.grid.shape, len(planned.shards)
    ((2, 10), 2)
    """
    given = {"problem": problem, "optimizer": optimizer, "decay": decay, "init": init, **fields}
    given |= {"record": record, "batch": batch, "dtype": dtype, "steps": steps, "seed": seed}
    zipped = {field for value in fields.values() if isinstance(value, Zipped) for field, _ in value.fields}
    for name in zipped & given.keys() & _OPTIONAL.keys():
        if isinstance(given[name], type(_OPTIONAL[name])) and given[name] == _OPTIONAL[name]:
            del given[name]
    grid = Grid.of(given)
    kept = Kept(measures(metrics), claim_names(claims))
    _check_names(grid, kept)
    return Plan(grid, kept)


def _check_names(grid: Grid, kept: Kept) -> None:
    """Refuse a variable with the name of another variable or coordinate."""
    from ufm.sweeps.dataset import dimension

    taken = {*RESERVED, *(dimension(name) for axis in grid.axes for name in (axis.name, *axis.values))}
    for measure in kept.measures:
        if measure.name in taken:
            raise invalid("sweep.metrics", measure.name, "another name, as the dataset has this one already")
    for axis in grid.axes:
        if axis.name in RESERVED:
            raise invalid(
                "sweep: name of a dimension", axis.name, "another name, as the dataset has this one already"
            )


def sweep(
    problem: Any,
    optimizer: Any = None,
    decay: Any = None,
    *,
    steps: Any = None,
    init: Any = Gaussian(0.1),
    seed: Any = 0,
    record: Any = LogSpaced(100),
    batch: Any = None,
    dtype: Any = "float64",
    metrics: Any = None,
    claims: bool | str | Sequence[str] = (),
    executor: Executor | None = None,
    workers: int | None = None,
    out: str | Path | None = None,
    progress: bool | None = None,
    **fields: Any,
) -> xarray.Dataset:
    """Simulate a run for every combination of the values given, and keep its metrics.

    A list, a range or a one-dimensional array is an axis; a tuple is one value; a dict is an axis whose keys are the
    labels. `Zipped` lets several fields vary together along one axis. The dimensions of the result are named after
    the arguments, in the order problem, optimizer, decay, init, `fields` as written, batch, dtype, steps, seed.

    Parameters
    ----------
    problem, optimizer, decay, init
        As for `ufm.simulate`, or several of them, or classes whose fields are among `fields`. What `Zipped` holds is
        left out.
    steps, seed, batch, dtype
        As for `ufm.simulate`, or several of them.
    record : Every, LogSpaced or At
        Which steps are kept; by default about a hundred.
    metrics : sequence of str or callable, or dict of callable, optional
        Names from `ufm.metrics`, ``loss``, ``fit`` and ``penalty``, or functions of a trajectory that give a number
        per record; by default the loss and all metrics that cost no more than a few steps of the run.
    claims : True or sequence of str
        Claims that judge every run, by name, or all of them; see `ufm.compare`. None by default.
    executor : concurrent.futures.Executor, optional
        What computes the shards. On a cluster ``dask.distributed.Client(address).get_executor(pure=False)``, of the
        extra ``cluster``. By default threads of this process.
    workers : int, optional
        Number of these threads; by default one per core.
    out : str or Path, optional
        Folder where every finished shard is kept. The same sweep with the same folder continues where it was
        stopped, however that was, and ends with the same bits; changed sources or arguments never meet older files.
    progress : bool, optional
        Show a progress bar with rate and time left.
    **fields
        Further axes, or single values: fields of the problem (``width``, ``depth``, ``per_class`` ...), of the
        optimizer (``lr``, ``beta``; ``momentum`` stands for beta or beta1), of the decay class (``rate``) and of the
        start (``scale``). ``total_decay`` and ``coupled_share`` together describe a decay of which that share is
        coupled. With `Zipped` any name, which becomes that of the dimension.

    Returns
    -------
    xarray.Dataset
        Metrics with the dimensions of the axes and ``record``, nan after the end of a run that diverged; ``status``,
        ``final_step``, ``undecided_signs`` of every run; with claims ``verdict``, ``error``, ``bound``, ``ratio`` and
        ``control`` over ``claim``. ``step`` is the recorded step; everything is dimensionless. On one machine the bits
        depend neither on the executor nor on which other runs there are; they are those of `ufm.ensemble.ensemble`,
        equal to `ufm.simulate` up to the order of its sums. Results of more than 1 GiB are
        read from the folder `out`, if there is one, when they are indexed. ``.to_netcdf("FILE.nc")`` exports it
        (extra ``io``).

    Raises
    ------
    InvalidProblemError, IncompatibleError
        Before the first step, for what no single run could be, and for a field that no part of the runs has.
    StorageError
        If the folder cannot be used, is full, or another sweep is at work in it; finished shards stay.
    LostWorkerError
        If a worker of the executor died; finished shards stay.

    Notes
    -----
    On a cluster (a folder `out` is written by the process that calls, not by the workers)::

        from dask.distributed import Client

        with Client("tcp://scheduler:8786") as client:
            executor = client.get_executor(pure=False)  # no hash of every shard in search of equal ones
            data = ufm.sweep(problem, ufm.Adam, lr=[0.1, 0.01], steps=10_000, executor=executor)

    Workers have to have the same sources and libraries, which is checked.

    Examples
    --------
    >>> import ufm
    >>> data = ufm.sweep(ufm.UFM(classes=3, width=4), [ufm.Momentum, ufm.Adam], lr=[0.1, 0.01], momentum=[0.0, 0.9],
    ...                  decay={"coupled": ufm.Coupled(0.01), "decoupled": ufm.Decoupled(0.01)}, steps=50,
    ...                  seed=range(2), metrics=["nc0", "loss"])
    >>> dict(data.sizes)
    {'optimizer': 2, 'decay': 2, 'lr': 2, 'momentum': 2, 'seed': 2, 'record': 43}
    >>> final = data["nc0"].isel(record=-1).mean("seed").sel(optimizer="Momentum", lr=0.1, momentum=0.9)
    >>> bool(final.sel(decay="coupled") < final.sel(decay="decoupled"))
    True
    """
    planned = plan(
        problem,
        optimizer,
        decay,
        steps=steps,
        init=init,
        seed=seed,
        record=record,
        batch=batch,
        dtype=dtype,
        metrics=metrics,
        claims=claims,
        **fields,
    )
    return planned.run(executor=executor, workers=workers, out=out, progress=progress)
