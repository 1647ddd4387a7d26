"""A sweep as a TOML file: the arguments of `ufm.sweep` by name, tables for objects, names for classes.

A list is an axis, as in Python, and the file of a single run describes a sweep of one cell::

    steps = 10000
    optimizer = ["Momentum", "Adam", "Signum"]
    lr = [0.001, 0.01]
    momentum = [0.0, 0.5, 0.9]
    total_decay = [5e-5, 5e-4]
    coupled_share = [0.0, 1.0]
    seed = { range = [0, 6] }
    metrics = ["loss", "nc0", "nc3"]
    claims = true

    [problem]
    type = "UFM"
    classes = 10
    width = 64
    per_class = 5

    [record]
    type = "LogSpaced"
    count = 100

The axes stand above the tables, those of a table's fields too: ``optimizer = "GD"`` with ``lr = [0.1, 0.2]``, and
``decay = "Coupled"`` with ``rate = [1e-3, 1e-2]``. Inside a table a list is one value, as in the file of a run.
``[[decay]]`` lists objects, ``"none"`` stands for no decay, and ``[zipped.NAME]`` holds the lists of fields that
vary together along the dimension NAME.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ufm.checks import whole
from ufm.config import classes_of, from_table, read_toml
from ufm.errors import IncompatibleError, InvalidProblemError, invalid
from ufm.sweeps.axes import Zipped
from ufm.sweeps.grid import PARTS
from ufm.sweeps.planning import Plan, plan

_LISTS = ("values", "targets", "frozen")  # fields of tables whose value is a list


def plan_from_toml(path: str | Path) -> Plan:
    """Read a sweep from a TOML file.

    Parameters
    ----------
    path : str or Path
        The file; see the head of this module for its layout.

    Returns
    -------
    Plan
        Not run yet.

    Raises
    ------
    StorageError
        If there is no such file, or it cannot be read.
    InvalidProblemError, IncompatibleError
        If it is not TOML, or a key or value in it is not allowed; the message names the field.
    """
    table = read_toml(path, "a TOML file that describes a sweep")
    try:
        return plan_from_table(table)
    except (InvalidProblemError, IncompatibleError) as error:
        raise type(error)(f"{path}: {error}") from None


def plan_from_table(table: Mapping[str, Any]) -> Plan:
    """Build the sweep that a table describes.

    Examples
    --------
    >>> table = {"problem": {"type": "UFM", "classes": 3, "width": 4}, "optimizer": "GD", "lr": [0.1, 0.2],
    ...          "steps": 10, "seed": {"range": [0, 5]}}
    >>> plan_from_table(table).grid.shape
    (2, 5)
    """
    if "problem" not in table:
        raise InvalidProblemError("problem is missing; allowed: a file with steps, [problem] and optimizer.")
    arguments = {name: _value(name, given) for name, given in table.items() if name != "zipped"}
    zipped = table.get("zipped", {})
    if not isinstance(zipped, Mapping):
        raise invalid("zipped", zipped, "tables [zipped.NAME] of lists")
    for name, lists in zipped.items():
        if not isinstance(lists, Mapping) or name in arguments:
            raise invalid(f"zipped.{name}", lists, "a table of lists under a name of its own")
        arguments[name] = Zipped(**{field: _value(field, given) for field, given in lists.items()})
    for name in ("executor", "workers", "out", "progress"):
        if name in arguments:
            raise invalid(
                name, table[name], "what is swept; where and how it runs is said on the command line"
            )
    return plan(**arguments)


def _value(name: str, given: Any) -> Any:
    """One argument: a list of values, or one."""
    if name in ("metrics", "claims"):
        return given
    if isinstance(given, Mapping) and set(given) == {"range"}:
        ends = given["range"]
        if not isinstance(ends, list) or len(ends) not in (2, 3):
            raise invalid(f"{name}.range", ends, "[first, end] or [first, end, step]")
        return range(*(whole(f"{name}.range", end, -(2**62)) for end in ends))
    read = _reader(name)
    return [read(value) for value in given] if isinstance(given, list) else read(given)


def _reader(name: str) -> Callable[[Any], Any]:
    def object_of(value: Any) -> Any:
        if isinstance(value, Mapping):
            try:
                return from_table(value, name)
            except (InvalidProblemError, IncompatibleError) as refusal:
                raise type(refusal)(f"{refusal}{_above_the_tables(name, value)}") from None
        if isinstance(value, str) and name in PARTS:
            if name == "decay" and value == "none":
                return None
            classes = {kind.__name__: kind for kind in classes_of(name)}
            if value not in classes:
                raise invalid(name, value, f"a table, or one of the classes {', '.join(classes)}")
            return classes[value]
        return _tuples(value)

    return object_of


def _above_the_tables(name: str, table: Mapping[str, Any]) -> str:
    """Where an axis is written that stands as a list in a table which was refused; empty if there is none."""
    axes = [field for field, given in table.items() if isinstance(given, list) and field not in _LISTS]
    if name not in ("optimizer", "decay", "init") or not axes or not isinstance(table.get("type"), str):
        return ""
    lines = ", ".join([f'{name} = "{table["type"]}"', *(f"{field} = {table[field]}" for field in axes)])
    return f" An axis over a field stands above the tables instead: {lines}."


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
