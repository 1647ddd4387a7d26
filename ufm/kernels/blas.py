"""The matrix product of the BLAS that scipy brings, as the address of a C function.

`scipy.linalg.cython_blas` is an extension module that needs nothing of its package, whose `__init__` takes longer to
import than all the rest of `ufm`: so the extension is loaded by itself. Cython hands out one and the same module
object however often an extension is loaded in a process, so that `scipy.linalg`, imported before or after, has it too.
"""

from __future__ import annotations

import ctypes
import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path
from types import ModuleType

NAME = "scipy.linalg.cython_blas"
INTEGERS = (2, 3, 4, 7, 9, 12)  # parameters of gemm that are sizes and lengths of rows


def _alone() -> ModuleType:
    """The extension module, loaded without its package."""
    import scipy

    spec = PathFinder.find_spec(NAME, [str(Path(folder) / "linalg") for folder in scipy.__path__])
    if spec is None or spec.loader is None:
        raise ImportError(f"{NAME} was not found")
    try:
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        # an import by name is still to come: only that makes it an attribute of its package
        sys.modules.pop(NAME, None)
    return module


@lru_cache(maxsize=1)
def module() -> ModuleType:
    """`scipy.linalg.cython_blas`."""
    if "scipy.linalg" not in sys.modules:
        try:
            return _alone()
        except Exception:  # whatever it is, the ordinary way may still work
            pass
    return importlib.import_module(NAME)


@contextmanager
def importable() -> Iterator[None]:
    """Let `import scipy.linalg.cython_blas` find the extension without its package, until the block ends."""
    if NAME in sys.modules:
        yield
        return
    sys.modules[NAME] = module()
    try:
        yield
    finally:
        package = sys.modules.get("scipy.linalg")
        if package is None:
            sys.modules.pop(NAME, None)
        else:  # another thread has imported it meanwhile
            package.cython_blas = module()


def address(name: str) -> int:
    """Address of a matrix product, "dgemm" or "sgemm", that counts in 32-bit integers.

    Raises
    ------
    ImportError
        If scipy's BLAS counts in other integers.
    """
    capsule = module().__pyx_capi__[name]
    api = ctypes.pythonapi
    signature_of = ctypes.PYFUNCTYPE(ctypes.c_char_p, ctypes.py_object)(("PyCapsule_GetName", api))
    pointer_of = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
        ("PyCapsule_GetPointer", api)
    )
    signature = signature_of(capsule)
    parameters = signature.decode().partition("(")[2].rstrip(")").split(", ")
    if len(parameters) != 13 or {parameters[i] for i in INTEGERS} != {"int *"}:
        raise ImportError(f"{NAME}.{name} is {signature.decode()}; allowed: sizes of type int (LP64).")
    return pointer_of(capsule, signature)
