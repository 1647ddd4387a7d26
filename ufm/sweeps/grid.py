"""The cells of a sweep: which run stands at which place, and which runs can be integrated together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from functools import cached_property
from math import prod
from typing import Any

import numpy as np

from ufm.checks import real, whole
from ufm.decay import Coupled, Decay, Decoupled, Mixed
from ufm.errors import IncompatibleError, InvalidProblemError, invalid
from ufm.run import Run
from ufm.sweeps.axes import Axis, axis_of, is_axis, length_of, plain

PARTS = ("problem", "optimizer", "decay", "init")
PLAIN = ("steps", "seed", "record", "batch", "dtype")
SHARED_DECAY = ("total_decay", "coupled_share")
MOST_CELLS = 10**7  # beyond, the list of the cells alone would take minutes

At = tuple[int, ...]  # a position on every axis


def shared_decay(total: float, share: float) -> Decay:
    """Decay with total rate `total`, the share `share` of it coupled and the rest decoupled.

    Examples
    --------
    >>> shared_decay(5e-4, 1.0), shared_decay(5e-4, 0.0)
    (Coupled(0.0005), Decoupled(0.0005))
    """
    total = real("sweep.total_decay", total, 0.0)
    share = real("sweep.coupled_share", share, 0.0)
    if share > 1.0:
        raise invalid("sweep.coupled_share", share, "a number from 0 to 1")
    if share == 1.0:
        return Coupled(total)
    return Decoupled(total) if share == 0.0 else Mixed(share * total, (1.0 - share) * total)


@dataclass(frozen=True, eq=False)
class Grid:
    """What a sweep holds fixed and what it varies; cell i, in C order over the axes, is one run.

    Parameters
    ----------
    fixed : mapping of str to Any
        Fields with one value.
    axes : tuple of Axis
        The dimensions.

    Raises
    ------
    InvalidProblemError, IncompatibleError
        For a field that no part of the runs has, and for what a single run would refuse.
    """

    fixed: Mapping[str, Any]
    axes: tuple[Axis, ...]

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Grid:
        """Build the grid of a sweep's arguments: lists become axes in the order of the arguments."""
        if is_axis("record", given["record"]):
            raise invalid("sweep.record", given["record"], "one object for all runs, such as LogSpaced(100)")
        several = {name: value for name, value in given.items() if is_axis(name, value)}
        size = prod(map(length_of, several.values()))
        if size > MOST_CELLS:
            raise invalid(
                "sweep: number of runs", size, f"at most {MOST_CELLS}, others in a sweep of their own"
            )
        axes = tuple(axis_of(name, value) for name, value in several.items())
        fixed = {name: plain(value) for name, value in given.items() if not is_axis(name, value)}
        grid = cls(fixed, axes)
        grid._check()
        return grid

    def __getstate__(self) -> dict[str, Any]:
        """Values alone: what was built from them is built again, and a worker needs no labels."""
        return {"fixed": self.fixed, "axes": tuple(replace(axis, labels={}) for axis in self.axes)}

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of values along every axis; () for a single run."""
        return tuple(len(axis) for axis in self.axes)

    @property
    def size(self) -> int:
        """Number of cells."""
        return prod(self.shape)

    @cached_property
    def _place(self) -> Mapping[str, int]:
        """The axis along which each field varies."""
        return {field: i for i, axis in enumerate(self.axes) for field in axis.values}

    def positions(self, cells: Sequence[int] | np.ndarray) -> list[At]:
        """Positions of cells on every axis."""
        if not self.axes:
            return [()] * len(cells)
        return list(
            zip(*(at.tolist() for at in np.unravel_index(np.asarray(cells), self.shape)), strict=True)
        )

    def value(self, field: str, at: At) -> Any:
        """Value of a field at a position."""
        if field in self._place:
            i = self._place[field]
            return self.axes[i].values[field][at[i]]
        return self.fixed[field]

    def run(self, at: At) -> Run:
        """The run at a position."""
        parts = {name: self.part(name, at) for name in PARTS}
        return Run(**parts, **{name: self.value(name, at) for name in PLAIN})

    def runs(self, cells: Sequence[int] | np.ndarray) -> list[Run]:
        """Runs of these cells."""
        return [self.run(at) for at in self.positions(cells)]

    def part(self, name: str, at: At) -> Any:
        """Problem, optimizer, decay or initialiser at a position; built once for all cells that share it."""
        key = self.part_key(name, at)
        if key not in self._built:
            self._built[key] = self._build(name, at)
        return self._built[key]

    def part_key(self, name: str, at: At) -> tuple[Any, ...]:
        """What tells apart the different problems, optimizers, decays or initialisers of the grid."""
        return (name, *(at[i] for i in self._axes_of(name)))

    def groups(self) -> list[np.ndarray]:
        """Cells by what they share: problem, kind of optimizer, steps, records, batch and precision."""
        shared = {"optimizer", "steps", "batch", "dtype", *self._fields_of("problem")}
        varies = [any(field in shared for field in axis.values) for axis in self.axes]
        numbers = np.empty(
            [len(axis) if vary else 1 for axis, vary in zip(self.axes, varies, strict=True)], int
        )
        known: dict[Any, int] = {}
        for at in np.ndindex(numbers.shape):
            run = self.run(at)
            key = (run.problem, type(run.optimizer), run.optimizer.rule, run.steps, run.batch, run.dtype)
            numbers[at] = known.setdefault(key, len(known))
        numbers = np.broadcast_to(numbers, self.shape).ravel()
        order = np.argsort(numbers, kind="stable")
        return np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1)

    def varying(self, names: Sequence[str]) -> Iterator[At]:
        """Positions that show every combination of what these fields of a run take; other axes stay at 0."""
        chosen = {i for name in names for i in (self._axes_of(name) if name in PARTS else self._axis(name))}
        return np.ndindex(*(len(axis) if i in chosen else 1 for i, axis in enumerate(self.axes)))

    @cached_property
    def _built(self) -> dict[tuple[Any, ...], Any]:
        return {}

    @cached_property
    def _owners(self) -> Mapping[str, str]:
        """The part that each further field belongs to."""
        options = {name: self._options(name) for name in PARTS}
        found: dict[str, str] = {}
        for field in (*self.fixed, *self._place):
            if field in PARTS or field in PLAIN:
                continue
            if field in SHARED_DECAY:
                found[field] = "decay"
                continue
            owners = [name for name in PARTS if any(field in _field_names(part) for part in options[name])]
            if len(owners) != 1:
                raise InvalidProblemError(f"sweep.{field} {_why(field, owners, options)}")
            found[field] = owners[0]
        return found

    def _options(self, field: str) -> Sequence[Any]:
        if field in self._place:
            return self.axes[self._place[field]].values[field]
        return (self.fixed[field],)

    def _fields_of(self, part: str) -> list[str]:
        return [part, *(field for field, owner in self._owners.items() if owner == part)]

    def _axis(self, field: str) -> tuple[int, ...]:
        return (self._place[field],) if field in self._place else ()

    def _axes_of(self, part: str) -> tuple[int, ...]:
        """Axes along which a part changes."""
        return self._axes_by_part[part]

    @cached_property
    def _axes_by_part(self) -> Mapping[str, tuple[int, ...]]:
        return {
            part: tuple(sorted({i for field in self._fields_of(part) for i in self._axis(field)}))
            for part in PARTS
        }

    def _build(self, name: str, at: At) -> Any:
        base = self.value(name, at)
        given = {field: self.value(field, at) for field in self._fields_of(name) if field != name}
        if name == "decay" and given.keys() & set(SHARED_DECAY):
            if base is not None or given.keys() != set(SHARED_DECAY):
                raise IncompatibleError(
                    "sweep.total_decay and sweep.coupled_share describe the decay together; allowed: both, "
                    "without decay."
                )
            return shared_decay(**{"total": given["total_decay"], "share": given["coupled_share"]})
        return configured(name, base, given)

    def _check(self) -> None:
        """Refuse before the first step what a single run would refuse."""
        named = [field for axis in self.axes for field in axis.values]
        for field in {name for name in named if named.count(name) > 1 or name in self.fixed}:
            raise IncompatibleError(f"sweep.{field} is given twice; allowed: once.")
        for seed in self._options("seed"):
            whole("sweep.seed", seed, 0)
        for names in (("problem", "decay", "init", "batch", "dtype"), ("optimizer", "steps")):
            for at in self.varying(names):
                run = self.run(at)
                if run.steps is None:
                    raise invalid("sweep.steps", None, "a whole number >= 0")
                if "steps" in names:
                    _ = run.rates


def _field_names(part: Any) -> tuple[str, ...]:
    """Fields of a part that a sweep can set; ``momentum`` stands for beta or beta1."""
    if not is_dataclass(part):
        return ()
    names = tuple(field.name for field in fields(part) if field.init and field.name != "blocks")
    if isinstance(part, Coupled | Decoupled):
        return ()
    return (*names, "momentum") if {"beta", "beta1"} & set(names) else names


def _why(field: str, owners: Sequence[str], options: Mapping[str, Sequence[Any]]) -> str:
    """The rest of the sentence on a field that belongs to no part, or to several."""
    if owners:
        return f"is a field of {' and of '.join(owners)}; allowed: fields of one of them."
    known = {name for parts in options.values() for part in parts for name in _field_names(part)}
    allowed = ", ".join(sorted({*PLAIN, *SHARED_DECAY, *known}))
    return f"is no field of these runs; allowed: {allowed}, or Zipped(...)."


def configured(name: str, part: Any, given: Mapping[str, Any]) -> Any:
    """A part with some fields set: a class is called with them, in an object they are replaced.

    Parameters
    ----------
    name : {"problem", "optimizer", "decay", "init"}
        Which part of a run.
    part : object or class
        Such as ``UFM(10, 64)`` or ``Adam``.
    given : mapping of str to Any
        Values of fields.

    Raises
    ------
    InvalidProblemError
        For a field that the part does not have, or a class that needs more fields.

    Examples
    --------
    >>> from ufm.optimizers import Adam
    >>> configured("optimizer", Adam, {"lr": 0.1, "momentum": 0.5})
    Adam(lr=0.1, beta1=0.5, beta2=0.999, eps=1e-08)
    """
    if not given and not isinstance(part, type):
        return part
    kind = part if isinstance(part, type) else type(part)
    names = _field_names(part)
    for field, value in given.items():
        if field not in names:
            raise invalid(
                f"sweep.{field}", value, f"the fields of {kind.__name__}, {', '.join(names) or 'none'}"
            )
    chosen = dict(given)
    if "momentum" in chosen:
        target = "beta" if "beta" in names else "beta1"
        if target in chosen:
            raise IncompatibleError(
                f"sweep.momentum is {kind.__name__}.{target}, which is given too; allowed: one."
            )
        chosen[target] = chosen.pop("momentum")
    if not isinstance(part, type):
        return replace(part, **chosen)
    if not is_dataclass(part):
        raise invalid(
            f"sweep.{name}", part, "an object such as GD(0.1), or a class such as GD with its fields"
        )
    missing = [
        field.name
        for field in fields(part)
        if field.init
        and field.name not in chosen
        and field.default is MISSING
        and field.default_factory is MISSING
        and field.name != "blocks"
    ]
    if missing:
        raise InvalidProblemError(
            f"sweep.{name} is the class {kind.__name__} without {', '.join(missing)}; allowed: "
            f"{', '.join(f'{field}=...' for field in missing)} as well, or an object."
        )
    return part(**chosen)
