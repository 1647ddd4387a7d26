"""Results of shards as one labelled dataset: in memory, or read from the shards' files when indexed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import xarray
from xarray.backends import BackendArray
from xarray.core import indexing

from ufm.environment import OF_PROCESS, environment
from ufm.storage import read_member
from ufm.sweeps.axes import shown
from ufm.sweeps.folder import SHARD, Folder
from ufm.sweeps.grid import Grid
from ufm.sweeps.measures import PER_RUN, STATUSES, VERDICTS, Kept
from ufm.sweeps.shards import Arrays, Shard, recorded

# Fields whose name a variable of the dataset has already.
_OTHER_NAMES = {"loss": "loss_function"}
_TEXTS = {"status": STATUSES, "verdict": VERDICTS}
_MEANINGS = {
    "status": "how the run ended",
    "final_step": "updates taken",
    "undecided_signs": "entries of gradients over all steps whose sign round-off cannot decide",
    "verdict": "judgement of the run by the claim",
    "error": "error at the record where its ratio to the bound is worst",
    "bound": "largest error that round-off may cause there",
    "ratio": "largest error/bound over the records",
    "control": "the same ratio for the perturbed statement",
}


def dimension(name: str) -> str:
    """Name of a field in the dataset."""
    return _OTHER_NAMES.get(name, name)


class Layout:
    """Where the results of a grid stand in its dataset.

    Parameters
    ----------
    grid, kept
        The sweep.
    """

    def __init__(self, grid: Grid, kept: Kept) -> None:
        self.grid, self.kept = grid, kept

    @cached_property
    def dims(self) -> tuple[str, ...]:
        """Names of the axes."""
        return tuple(dimension(axis.name) for axis in self.grid.axes)

    @cached_property
    def steps(self) -> np.ndarray:
        """Recorded steps, shape (records,), or (steps, records) filled up with -1 where runs differ in length."""
        found = [recorded(self.grid.run(at)) for at in self.grid.varying(["steps"])]
        filled = np.full((len(found), max(map(len, found))), -1, np.int64)
        for row, steps in zip(filled, found, strict=True):
            row[: len(steps)] = steps
        return filled if len(found) > 1 else filled[0]

    @property
    def records(self) -> int:
        """Number of records of the longest runs."""
        longest: int = self.steps.shape[-1]
        return longest

    @property
    def bytes(self) -> int:
        """Size of all that is kept."""
        one = self.kept.empty(1, self.records)
        return self.grid.size * sum(array.nbytes for array in one.values())

    def shape_of(self, name: str) -> tuple[int, ...]:
        """Shape of a variable."""
        return (*self.grid.shape, *self.kept.empty(0, self.records)[name].shape[1:])

    def dims_of(self, name: str) -> tuple[str, ...]:
        """Dimensions of a variable."""
        if name in PER_RUN:
            return self.dims
        measured = {measure.name for measure in self.kept.measures}
        return (*self.dims, "record" if name in measured else "claim")

    def dataset(self, variables: Mapping[str, Any]) -> xarray.Dataset:
        """Dataset of these variables by name, with coordinates, units and provenance."""
        data = xarray.Dataset(
            {
                name: (self.dims_of(name), values, self._attributes(name))
                for name, values in variables.items()
            },
            self._coordinates(),
        )
        data.attrs = {
            "title": f"sweep of {self.grid.size} runs over {', '.join(self.dims) or 'nothing'}",
            "fixed": json.dumps({name: shown(value) for name, value in self.grid.fixed.items()}),
            "scale": "dimensionless",
            "environment": json.dumps(_environment()),
        }
        return data

    def _coordinates(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for axis in self.grid.axes:
            for field, labels in axis.labels.items():
                units = {"units": "1"} if labels.dtype.kind in "if" else {}
                found[dimension(field)] = (dimension(axis.name), labels, units)
        dims: tuple[str, ...] = ("record",)
        if self.steps.ndim > 1:
            axis = next(axis for axis in self.grid.axes if "steps" in axis.values)
            dims = (dimension(axis.name), "record")
        found["step"] = (dims, self.steps, {"long_name": "updates taken at the record", "units": "1"})
        if self.kept.claims:
            found["claim"] = ("claim", np.array(self.kept.claims))
        return found

    def _attributes(self, name: str) -> dict[str, str]:
        formulas = {measure.name: measure.formula for measure in self.kept.measures}
        text = {"long_name": formulas.get(name) or _MEANINGS[name]}
        return text if name in _TEXTS else {**text, "units": "1"}


def _environment() -> dict[str, Any]:
    """Versions and machine; not threads, which workers do not take from this process, and no folder."""
    found: dict[str, Any] = dict(environment())
    for name in OF_PROCESS:
        del found[name]
    found["blas"] = [
        {key: value for key, value in blas.items() if key != "threads"} for blas in found["blas"]
    ]
    return found


def in_memory(layout: Layout, full: Mapping[str, np.ndarray]) -> xarray.Dataset:
    """Dataset of the arrays of the whole grid, of shapes (cells, ...)."""
    return layout.dataset(
        {name: _decoded(name, array.reshape(layout.shape_of(name))) for name, array in full.items()}
    )


def put(full: Arrays, shard: Shard, arrays: Arrays) -> None:
    """Write the results of a shard to its cells of the arrays of the whole grid."""
    for name, values in arrays.items():
        if values.ndim == 2 and values.shape[1] < full[name].shape[1]:
            full[name][shard.cells, : values.shape[1]] = values  # a shorter run: nan after its last record
        else:
            full[name][shard.cells] = values


def on_disk(layout: Layout, shards: Sequence[Shard], folder: Folder) -> xarray.Dataset:
    """Dataset whose variables are read from the shards' files when they are indexed."""
    files = [folder.file(shard) for shard in shards]
    places = np.empty((layout.grid.size, 2), np.int32)  # file, and row in it, of every cell
    for number, shard in enumerate(shards):
        places[shard.cells, 0], places[shard.cells, 1] = number, np.arange(len(shard.cells))
    names = layout.kept.empty(0, 0)
    return layout.dataset(
        {name: indexing.LazilyIndexedArray(_Variable(layout, name, files, places)) for name in names}
    )


class _Variable(BackendArray):
    """One variable of a sweep, read from the files that hold the cells asked for."""

    def __init__(self, layout: Layout, name: str, files: Sequence[Path], places: np.ndarray) -> None:
        self._layout, self._name, self._files, self._places = layout, name, files, places
        self.shape = layout.shape_of(name)
        self.dtype = _decoded(name, layout.kept.empty(1, 1)[name]).dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._at)

    def _at(self, key: tuple[Any, ...]) -> np.ndarray:
        """Values at an integer, a slice or an index array along each axis."""
        shape = self._layout.grid.shape
        chosen = [np.arange(n)[k] for n, k in zip(shape, key[: len(shape)], strict=True)]
        grid = np.ix_(*map(np.atleast_1d, chosen))
        cells = np.ravel_multi_index(np.broadcast_arrays(*grid), shape) if shape else np.zeros((), np.int64)
        found = self._gather(cells.ravel())[(slice(None), *key[len(shape) :])]
        lengths = [len(c) for c in chosen if np.ndim(c)]
        return _decoded(self._name, found.reshape(*lengths, *found.shape[1:]))

    def _gather(self, cells: np.ndarray) -> np.ndarray:
        """Values of these cells, shape (cells, ...)."""
        full = np.repeat(self._layout.kept.empty(1, self._layout.records)[self._name], len(cells), axis=0)
        places = self._places[cells]
        for number in np.unique(places[:, 0]):
            here = np.flatnonzero(places[:, 0] == number)
            values = read_member(self._files[number], SHARD, self._name)[places[here, 1]]
            full[(here, slice(0, values.shape[1])) if values.ndim == 2 else here] = values
        return full


def _decoded(name: str, values: np.ndarray) -> np.ndarray:
    """Codes as the texts that they stand for."""
    return np.array(_TEXTS[name])[values] if name in _TEXTS else values
