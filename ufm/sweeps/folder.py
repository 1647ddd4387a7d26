"""Finished shards on disk, one file each, named by the hash of everything that decides its numbers."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ufm.checks import path_of
from ufm.config import to_table
from ufm.errors import IncompatibleError, StorageError
from ufm.storage import Archive, read_archive, write_archive
from ufm.sweeps.grid import PARTS, PLAIN, Grid
from ufm.sweeps.measures import Kept
from ufm.sweeps.shards import Arrays, Shard, software

try:
    import fcntl
except ImportError:  # a system without it has no lock against a second sweep
    fcntl = None  # type: ignore[assignment]

WRITERS = 4  # files written side by side: a disk needs milliseconds for each, but not many more for several
SHARD = Archive("ufm sweep shard", 1, "ufm.sweep", "run the sweep again, which computes it anew")


class Names:
    """File names of the shards of one sweep.

    Parameters
    ----------
    grid, kept
        The sweep.

    Raises
    ------
    IncompatibleError
        For a sweep with a function of the user's own: a changed one could not be told from what was stored.
    """

    def __init__(self, grid: Grid, kept: Kept) -> None:
        self._grid = grid
        self._digests: dict[tuple[Any, ...], str] = {}
        self._common = json.dumps([SHARD.schema, software(), kept.table()])
        try:
            self._common += json.dumps(to_table(grid.fixed["record"], where="record"))
            for part in PARTS:
                for at in grid.varying([part]):
                    self._digest(part, at)
        except IncompatibleError as error:
            raise IncompatibleError(f"sweep.out cannot be used: {error}") from None

    def of(self, shard: Shard) -> str:
        """Name of a shard's file."""
        key = hashlib.sha256(self._common.encode())
        for at in self._grid.positions(shard.cells):
            parts = [self._digest(part, at) for part in PARTS]
            plain = [self._grid.value(field, at) for field in PLAIN if field != "record"]
            key.update(f"{' '.join(parts)} {plain!r}\n".encode())
        return f"{key.hexdigest()[:32]}.npz"

    def _digest(self, part: str, at: tuple[int, ...]) -> str:
        """Hash of a part of a run, computed once for all cells that share it."""
        key = self._grid.part_key(part, at)
        if key not in self._digests:
            found = self._grid.part(part, at)
            table = None if found is None else to_table(found, {}, part)
            self._digests[key] = hashlib.sha256(json.dumps(table).encode()).hexdigest()
        return self._digests[key]


class Folder:
    """The folder of a sweep's finished shards.

    Parameters
    ----------
    path : str or Path
        Made if need be.
    names : Names
        Of the sweep's shards. Files of other sweeps in the folder are left alone.

    Raises
    ------
    StorageError
        If there can be no such folder.
    """

    def __init__(self, path: str | Path, names: Names) -> None:
        self.path = path_of("sweep.out", path)
        self._names = names
        self._files: dict[Shard, Path] = {}
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(
                f"{self.path} cannot be a folder ({error.strerror}); allowed: a place with access."
            ) from None

    def file(self, shard: Shard) -> Path:
        """Where a shard is kept; the hash of its cells is computed once."""
        if shard not in self._files:
            self._files[shard] = self.path / self._names.of(shard)
        return self._files[shard]

    @cached_property
    def _lock_file(self) -> Path:
        return self.path / ".lock"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other sweeps out of the folder, and remove what a killed one left half-written.

        Raises
        ------
        StorageError
            If another sweep is at work in it, or the folder cannot be written to.
        """
        try:
            lock = open(self._lock_file, "ab")  # noqa: SIM115 - held until the end of the block
        except OSError as error:
            raise StorageError(
                f"{self.path} cannot be written to ({error.strerror}); allowed: a folder with access."
            ) from None
        with lock:
            if fcntl is not None:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    raise StorageError(
                        f"{self.path} is in use by another sweep; allowed: another folder, or this one when that "
                        "sweep has ended."
                    ) from None
            for part in self.path.glob(".*.part"):
                part.unlink(missing_ok=True)
            yield

    def write(self, shard: Shard, arrays: Arrays) -> None:
        """Keep a finished shard, whole or not at all."""
        write_archive(self.file(shard), SHARD, {"cells": len(shard.cells), "software": software()}, arrays)

    def read(self, shard: Shard) -> Arrays | None:
        """Arrays of a finished shard; None if there is no file, or, with a warning that names it, a damaged one."""
        path = self.file(shard)
        if not path.exists():
            return None
        try:
            _, arrays = read_archive(path, SHARD)
            _check(path, shard, arrays)
        except StorageError as error:
            warnings.warn(f"{error} Its {len(shard.cells)} runs are computed again.", stacklevel=2)
            return None
        return arrays


def _check(path: Path, shard: Shard, arrays: Mapping[str, np.ndarray]) -> None:
    expected = shard.kept.empty(len(shard.cells), shard.records)
    for name in expected.keys() | arrays.keys():
        if name not in arrays or name not in expected or arrays[name].shape != expected[name].shape:
            raise StorageError(f"{path} does not hold {name} of its runs; next: {SHARD.remedy}.")
