"""How numba compiles the functions that only other kernels call.

Numba optimises each function and translates it to machine code before it links it into the functions that call it,
which are then optimised and translated as a whole. Of a function that is called in no other way that first round is
wasted: a quarter to a half of the time that a kernel takes to compile. Here such a function is only simplified.
"""

from __future__ import annotations

from typing import Any

from numba.core.codegen import JITCodeLibrary, JITCPUCodegen
from numba.core.compiler import Compiler


class _Library(JITCodeLibrary):
    """One function as numba links it into others."""

    def _optimize_final_module(self) -> None:
        """Done in the functions that this one is linked into."""


class _Codegen(JITCPUCodegen):
    """The code generator of another, with its target, without translation to machine code."""

    _library_class = _Library

    def __init__(self, original: Any) -> None:
        self.__dict__.update(original.__dict__)

    def _add_module(self, module: Any) -> None:
        pass

    def set_env(self, env_name: str, env: Any) -> None:
        """No machine code, no place for the environment; no function without Python objects reads it."""


class _ApartLibrary(_Library):
    """The same, of a function that LLVM does not copy into those that call it."""

    def add_ir_module(self, ir_module: Any) -> None:
        for function in ir_module.functions:
            if not function.is_declaration:
                function.attributes.add("noinline")
        super().add_ir_module(ir_module)


class _ApartCodegen(_Codegen):
    _library_class = _ApartLibrary


class Linked(Compiler):
    """Numba's compiler for functions that are linked into others and never called from Python (`pipeline_class`)."""

    codegen = _Codegen

    def __init__(self, typing: Any, target: Any, library: Any, *rest: Any) -> None:
        if library is None:
            library = self.codegen(target.codegen()).create_library("linked")
        super().__init__(typing, target, library, *rest)


class Apart(Linked):
    """For functions that are called from several places, or seldom: LLVM works on one copy."""

    codegen = _ApartCodegen
