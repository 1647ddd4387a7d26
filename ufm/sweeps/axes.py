"""What varies along one dimension of a sweep: values of a field and their labels, or several fields together."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ufm.errors import InvalidProblemError, invalid

LONGEST_LABEL = 80

# Fields whose value in a single run may be a mapping, so that a dict is not an axis there.
_MAPPINGS = ("init", "frozen")


@dataclass(frozen=True, init=False, repr=False)
class Zipped:
    """Fields that vary together along one dimension, which the keyword names.

    Parameters
    ----------
    **fields : list, range, array of shape (values,) or dict
        Values of each field, all of the same number.

    Raises
    ------
    InvalidProblemError
        For a field without a list of values, or lists of different lengths.

    Examples
    --------
    >>> Zipped(lr=[0.1, 0.01], steps=[100, 1000])
    Zipped(lr=[0.1, 0.01], steps=[100, 1000])
    """

    fields: tuple[tuple[str, Any], ...]

    def __init__(self, /, **fields: Any) -> None:
        if not fields:
            raise InvalidProblemError("Zipped is empty; allowed: lists by field name.")
        for name, value in fields.items():
            if not is_axis(name, value):
                raise invalid(f"Zipped.{name}", value, "a list of values")
        lengths = {name: length_of(value) for name, value in fields.items()}
        if len(set(lengths.values())) > 1:
            raise invalid("Zipped: numbers of values", lengths, "the same number for each field")
        object.__setattr__(self, "fields", tuple(fields.items()))

    def __repr__(self) -> str:
        return f"Zipped({', '.join(f'{name}={value!r}' for name, value in self.fields)})"


@dataclass(frozen=True)
class Axis:
    """One dimension of a sweep.

    Parameters
    ----------
    name : str
        Of the dimension.
    values : mapping of str to sequence
        Values of every field that varies along it, all of the same number.
    labels : mapping of str to ndarray, shape (values,)
        What stands for the values in the dataset: numbers, texts, names of classes.
    """

    name: str
    values: Mapping[str, Sequence[Any]]
    labels: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        return len(next(iter(self.values.values())))


def is_axis(name: str, value: Any) -> bool:
    """Whether a field is given several values: a list, a range, a one-dimensional array, a dict, or `Zipped`."""
    if isinstance(value, np.ndarray):
        return value.ndim == 1
    if isinstance(value, dict):
        return name not in _MAPPINGS
    return isinstance(value, list | range | Zipped)


def length_of(value: Any) -> int:
    """Number of values that a list, range, array, dict or `Zipped` gives."""
    if isinstance(value, Zipped):
        value = value.fields[0][1]
    try:
        return len(value)
    except OverflowError:  # of a range
        return 2**63


def axis_of(name: str, value: Any) -> Axis:
    """Build the axis that a keyword stands for.

    Raises
    ------
    InvalidProblemError
        For an axis without values, or with one value twice: its label would stand for two places.

    Examples
    --------
    >>> axis_of("lr", [0.1, 0.01]).labels["lr"].tolist()
    [0.1, 0.01]
    >>> axis_of("decay", {"none": None}).labels["decay"].tolist()
    ['none']
    """
    if isinstance(value, Zipped):
        return Axis(
            name,
            {field: _values(field, given) for field, given in value.fields},
            {field: _labels(field, given) for field, given in value.fields},
        )
    labels = _labels(name, value)
    found, counts = np.unique(labels, return_counts=True)
    if counts.max() > 1:
        raise InvalidProblemError(f"sweep.{name} holds {found[counts.argmax()]!s} twice; allowed: once.")
    return Axis(name, {name: _values(name, value)}, {name: labels})


def _values(name: str, given: Any) -> Sequence[Any]:
    if isinstance(given, Zipped):
        raise invalid(f"sweep.{name}", given, "a list of values inside Zipped")
    if isinstance(given, range):
        return given
    return tuple(plain(value) for value in (given.values() if isinstance(given, dict) else given))


def _labels(name: str, given: Any) -> np.ndarray:
    labels = [_label(value) for value in given]
    if not labels:
        raise invalid(f"sweep.{name}", given, "at least one value")
    kinds = {type(label) for label in labels}
    if kinds <= {int, float} or len(kinds) == 1:
        try:
            return np.array(labels)
        except OverflowError:
            pass
    return np.array([str(label) for label in labels])


def plain(value: Any) -> Any:
    """Return a numpy number as a Python number, and anything else as it is."""
    return value.item() if isinstance(value, np.generic) else value


def shown(value: Any) -> str:
    """Return the repr of a value in one line and without memory addresses, which change from process to process."""
    return re.sub(r" at 0x[0-9a-fA-F]+|\s*\n\s*", " ", repr(value))


def _label(value: Any) -> bool | int | float | str:
    """A number or a text as it is, a class by its name, another object as the code that makes it."""
    value = plain(value)
    if isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, type):
        return value.__name__
    text = getattr(value, "__name__", None) or shown(value)
    return text if len(text) <= LONGEST_LABEL else f"{text[: LONGEST_LABEL - 3]}..."
