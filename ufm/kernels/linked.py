"""How numba compiles kernels: less thoroughly where nothing is gained, for the first call of a user waits for it.

Numba optimises each function and translates it to machine code before it links it into the functions that call it,
which are then optimised and translated as a whole. Of a function that is called in no other way that first round is
wasted: a quarter to a half of the time that a kernel takes to compile. Here such a function is left as it is, and the
kernel that it is linked into is optimised once instead of twice: numba's first round prepares the removal of
reference counts, which kernels without arrays of their own have none of.
"""

from __future__ import annotations

from typing import Any

from numba.core.codegen import JITCodeLibrary, JITCPUCodegen
from numba.core.compiler import Compiler, Flags
from numba.core.compiler_machinery import PassManager
from numba.core.typed_passes import NopythonRewrites
from numba.core.untyped_passes import InlineClosureLikes

# for comprehensions, closures and expressions of whole arrays, of which kernels have none
UNUSED = (InlineClosureLikes, NopythonRewrites)


class _Flags(Flags):  # type: ignore[misc]
    """Flags that compare what was set: numba builds two dictionaries of all of them, thousands of times a kernel."""

    _hash = hash(Flags())

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Flags) and self._values == other._values:
            return True
        return bool(super().__eq__(other))

    def __hash__(self) -> int:
        return self._hash  # numba's own is made of the names of the flags alone


class _KernelLibrary(JITCodeLibrary):
    """A kernel and all that is linked into it, optimised as a whole and once."""

    def _optimize_functions(self, module: Any) -> None:
        module.data_layout = self._codegen._data_layout

    def _optimize_final_module(self) -> None:
        passes, builder = self._codegen._module_pass_manager()
        passes.run(self._final_module, builder)


class _KernelCodegen(JITCPUCodegen):
    """The code generator of another, with its target."""

    _library_class: type[JITCodeLibrary] = _KernelLibrary

    def __init__(self, original: Any) -> None:
        self.__dict__.update(original.__dict__)


class _LinkedLibrary(_KernelLibrary):
    """One function as numba links it into others."""

    def _optimize_final_module(self) -> None:
        """Done in the functions that this one is linked into."""


class _LinkedCodegen(_KernelCodegen):
    """Without translation to machine code."""

    _library_class = _LinkedLibrary

    def _add_module(self, module: Any) -> None:
        pass

    def set_env(self, env_name: str, env: Any) -> None:
        """No machine code, no place for the environment; no function without Python objects reads it."""


class _ApartLibrary(_LinkedLibrary):
    """The same, of a function that LLVM does not copy into those that call it."""

    def add_ir_module(self, ir_module: Any) -> None:
        for function in ir_module.functions:
            if not function.is_declaration:
                function.attributes.add("noinline")
        super().add_ir_module(ir_module)


class _ApartCodegen(_LinkedCodegen):
    _library_class = _ApartLibrary


class Kernel(Compiler):
    """Numba's compiler for kernels, which make no arrays (`pipeline_class`)."""

    codegen: type[_KernelCodegen] = _KernelCodegen

    def __init__(
        self, typing: Any, target: Any, library: Any, arguments: Any, result: Any, flags: Any, local: Any
    ):
        if library is None:
            library = self.codegen(target.codegen()).create_library("kernel")
            library.enable_object_caching()
        super().__init__(typing, target, library, arguments, result, _Flags(flags), local)

    def define_pipelines(self) -> list[PassManager]:
        """Numba's passes without those for what kernels do not have."""
        manager = PassManager("kernel")
        for default in super().define_pipelines():
            manager.passes.extend(each for each in default.passes if each[0] not in UNUSED)
        manager.finalize()
        return [manager]


class Linked(Kernel):
    """For functions that are linked into others and never called from Python."""

    codegen = _LinkedCodegen


class Apart(Linked):
    """For functions that are called from several places, or seldom: LLVM works on one copy."""

    codegen = _ApartCodegen
