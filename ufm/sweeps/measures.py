"""What is kept of every run: a number per record for each measure, how it ended, and verdicts of claims."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ufm import metrics as room
from ufm.errors import IncompatibleError, InvalidProblemError, invalid
from ufm.sweeps.windows import over_windows
from ufm.trajectory import Trajectory

STATUSES = ("completed", "diverged")
VERDICTS = ("not applicable", "holds", "inconclusive", "fails")
LOSSES = {
    "loss": "objective, fit + penalty",
    "fit": "loss over the data",
    "penalty": "sum of lam/2 ||B||_F^2 of the coupled decay",
}
CHEAP = ("nc0", "nc1", "nc2", "nc2n", "nc2a", "nc2w", "nc2wn", "nc2wa", "nc2m", "nc3", "nc4", "cdnv")
DEFAULT = ("loss", *CHEAP)

# numbers of a claim's judgement, as fields of `ufm.compare.Row`
JUDGED = ("error", "bound", "ratio", "control")


@dataclass(frozen=True)
class Measure:
    """One number per record of a run.

    Parameters
    ----------
    name : str
        Of the variable in the dataset.
    function : callable
        ``function(trajectory)`` is an array of shape (records,).
    formula : str
        What it is, in words or as a formula.
    """

    name: str
    function: Callable[[Trajectory], Any]
    formula: str

    @property
    def by_record(self) -> bool:
        """Whether it reads nothing but the states of records one by one, so that any records can be put together.

        `nrc3` does not, which fits gamma to the last record.
        """
        function = self.function.func if isinstance(self.function, partial) else self.function
        return getattr(function, "__module__", "").startswith("ufm.metrics.") and function is not room.nrc3

    def of(self, trajectory: Any) -> np.ndarray:
        """Values at the records, shape (records,)."""
        values = np.asarray(self.function(trajectory))
        if values.shape != (len(trajectory),) or values.dtype.kind not in "biuf":
            raise invalid(
                f"sweep.metrics: {self.name} of {len(trajectory)} records",
                f"an array of shape {values.shape} and dtype {values.dtype}",
                "one number for each record",
            )
        return values.astype(np.float64)

    def table(self) -> dict[str, Any]:
        """What decides its values, as plain values.

        Raises
        ------
        IncompatibleError
            For a function from outside this package: a changed one could not be told from what was stored.
        """
        function: Any = self.function
        options: Mapping[str, Any] = {}
        if isinstance(function, partial) and not function.args:
            function, options = function.func, function.keywords
        if isinstance(function, _Loss):
            return {"name": self.name, "loss": function.name}
        if getattr(function, "__module__", "").partition(".")[0] != "ufm":
            raise IncompatibleError(
                f"sweep.metrics: {self.name} is a function of your own, which a folder cannot hold; allowed: metrics "
                "of this package with out=..., or no out."
            )
        return {
            "name": self.name,
            "function": function.__name__,
            "options": {k: repr(v) for k, v in options.items()},
        }


def measures(given: Any) -> tuple[Measure, ...]:
    """Read the argument ``metrics`` of a sweep.

    Parameters
    ----------
    given : None, sequence of str or callable, or mapping of str to callable
        Names of functions of `ufm.metrics` or of losses, functions of a trajectory, or functions by name.

    Raises
    ------
    InvalidProblemError
        For an unknown or repeated name, or something that cannot be called.

    Examples
    --------
    >>> [measure.name for measure in measures(["fit", "nc0"])]
    ['fit', 'nc0']
    """
    if isinstance(given, str) or callable(given):
        given = (given,)
    if given is None:
        given = DEFAULT
    try:
        pairs = given.items() if isinstance(given, Mapping) else [(_name(metric), metric) for metric in given]
    except TypeError:
        raise invalid("sweep.metrics", given, "names or functions of ufm.metrics") from None
    found = tuple(_measure(str(name), metric) for name, metric in pairs)
    names = [measure.name for measure in found]
    for name in names:
        if names.count(name) > 1:
            raise InvalidProblemError(
                f"sweep.metrics holds {name} twice; allowed: once, or other names with a dict such as "
                "{'alpha': metrics.nc0}."
            )
    return found


def _name(metric: Any) -> str:
    if isinstance(metric, partial):
        metric = metric.func
    return metric if isinstance(metric, str) else getattr(metric, "__name__", repr(metric))


def _measure(name: str, metric: Any) -> Measure:
    if isinstance(metric, str):
        if metric in LOSSES:
            return Measure(name, _Loss(metric), LOSSES[metric])
        known = sorted({entry.function.__name__ for entry in (*room.catalogue(), *room.regressive())})
        if metric not in known:
            raise invalid("sweep.metrics", metric, f"{', '.join((*LOSSES, *known))}, or functions")
        metric = getattr(room, metric)
    if not callable(metric):
        raise invalid(f"sweep.metrics: {name}", metric, "a function of a trajectory")
    return Measure(name, metric, _formula(metric))


@dataclass(frozen=True)
class _Loss:
    """Fit, penalty or their sum, as a function that a worker process can be sent."""

    name: str

    def __call__(self, trajectory: Trajectory) -> np.ndarray:
        values: np.ndarray = getattr(trajectory, self.name)
        return values


def _formula(metric: Callable[..., Any]) -> str:
    """The catalogue's formula, or the first line of the function's own text."""
    function = metric.func if isinstance(metric, partial) else metric
    options = dict(metric.keywords) if isinstance(metric, partial) else {}
    rows = [entry for entry in (*room.catalogue(), *room.regressive()) if entry.function is function]
    for entry in rows:
        if options.items() >= dict(entry.options).items() or (entry is rows[0] and not options):
            return entry.formula
    lines = str(function.__doc__ or getattr(function, "__name__", "")).strip().splitlines()
    return lines[0] if lines else ""


def claim_names(given: Any) -> tuple[str, ...]:
    """Read the argument ``claims`` of a sweep: names, True for all claims about runs, or none.

    Raises
    ------
    InvalidProblemError
        For a name that no claim about runs has.
    """
    from ufm.claims import registry

    about_runs = (
        tuple(name for name, claim in registry().items() if claim.applies is not None) if given else ()
    )
    if given is True:
        return about_runs
    if isinstance(given, str):
        given = (given,)
    if given and not isinstance(given, Sequence):
        raise invalid("sweep.claims", given, "True, or a sequence of names that 'ufm claims' lists")
    names = tuple(given or ())
    for name in names:
        if name not in about_runs:
            raise invalid("sweep.claims", name, f"True, or claims about runs, {', '.join(about_runs)}")
    return names


@dataclass(frozen=True)
class Kept:
    """Everything that is kept of a run.

    Parameters
    ----------
    measures : tuple of Measure
        A number per record each.
    claims : tuple of str
        Claims that judge the run.
    """

    measures: tuple[Measure, ...]
    claims: tuple[str, ...]

    def table(self) -> dict[str, Any]:
        """What decides the values, as plain values."""
        return {"measures": [measure.table() for measure in self.measures], "claims": list(self.claims)}

    def empty(self, cells: int, records: int) -> dict[str, np.ndarray]:
        """Arrays for some cells, nan where nothing is recorded."""
        found: dict[str, np.ndarray] = {
            measure.name: np.full((cells, records), np.nan) for measure in self.measures
        }
        found |= {name: np.zeros(cells, kind) for name, kind in PER_RUN.items()}
        if self.claims:
            found["verdict"] = np.zeros((cells, len(self.claims)), np.int8)
            found |= {name: np.full((cells, len(self.claims)), np.nan) for name in JUDGED}
        return found

    def put(self, arrays: Mapping[str, np.ndarray], trajectories: Sequence[Trajectory]) -> None:
        """Write what is kept of runs of one problem into the rows of `arrays`."""
        values = over_windows([measure for measure in self.measures if measure.by_record], trajectories)
        for measure in self.measures:
            if not measure.by_record:
                values[measure.name] = [measure.of(trajectory) for trajectory in trajectories]
            for row, known in enumerate(values[measure.name]):
                arrays[measure.name][row, : len(known)] = known
        for row, trajectory in enumerate(trajectories):
            status = trajectory.status
            arrays["status"][row] = STATUSES.index(status.name)
            arrays["final_step"][row] = status.step
            arrays["undecided_signs"][row] = trajectory.stats["undecided_signs"]
            if self.claims:
                self._judge(arrays, row, trajectory)

    def _judge(self, arrays: Mapping[str, np.ndarray], row: int, trajectory: Trajectory) -> None:
        from ufm.claims import registry
        from ufm.compare import judge

        run = trajectory.judged()
        for column, name in enumerate(self.claims):
            found = judge(registry()[name], run)
            arrays["verdict"][row, column] = VERDICTS.index(found.verdict)
            for field in JUDGED:
                arrays[field][row, column] = getattr(found, field)


PER_RUN = {"status": np.int8, "final_step": np.int64, "undecided_signs": np.int64}
RESERVED: Sequence[str] = (*PER_RUN, "verdict", *JUDGED, "record", "step", "claim")
