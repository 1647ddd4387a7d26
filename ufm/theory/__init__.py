"""Closed forms of the literature, one module per result, and beside them their claims.

Modules whose names begin with an underscore are no results: they evaluate them.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

__all__ = [module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")]


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return importlib.import_module(f"ufm.theory.{name}")
    raise AttributeError(f"module 'ufm.theory' has no attribute {name!r}; results are {', '.join(__all__)}")


def __dir__() -> list[str]:
    return __all__
