"""Every figure of the project, one module each: `compute(quick)` gives the numbers, `draw(data)` the picture.

``python -m figures [name ...] [--quick] [--out DIR] [--list]`` saves both, see `figures.__main__`.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Protocol, cast

import xarray
from matplotlib.figure import Figure

__all__ = ["FigureModule", "load", "names"]


class FigureModule(Protocol):
    """What a module of this package offers."""

    __doc__: str | None

    def compute(self, quick: bool) -> xarray.Dataset:
        """All numbers of the figure, with attributes caption, source and settings; fewer of them if quick."""

    def draw(self, data: xarray.Dataset) -> Figure:
        """The picture, from the numbers alone."""


def names() -> list[str]:
    """Names of all figures, in alphabetical order."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def load(name: str) -> FigureModule:
    """Import the module of a figure."""
    return cast(FigureModule, importlib.import_module(f"figures.{name}"))
