"""Signatures of the kernels, the tuple they read a problem from, and the one way they are compiled.

Kernels are first-class functions with explicit signatures, so that any loss meets any update rule without
compiling the loop again, and everything comes warm from the disk cache in the next process.
"""

from __future__ import annotations

import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numba
import numpy as np
from numba import float32, float64, int64, types
from numba.core.errors import NumbaError, UnsupportedBytecodeError

from ufm.errors import IncompatibleError
from ufm.kernels.cache import folder
from ufm.kernels.linked import Apart, Kernel, Linked

# Kernels that make arrays count references to them, those that only fill what they are given need not: with `_nrt`
# off numba leaves out its atomic counters, which cost small models more than their arithmetic.
ALLOCATING: dict[str, Any] = {"error_model": "numpy", "nogil": True}
OPTIONS: dict[str, Any] = {**ALLOCATING, "_nrt": False}

FINE, EXPONENTS, NOT_FINITE = 0, 1, 2  # what a head reports of the logits
DOUBT = 3  # why a loop stopped: a sign may be undecided, and the watch that counts them is needed

# a literal's type is its value: numba would compile what it is handed to once more for it
ZERO = np.int64(0)

# Entries that nobody uses cost compile time: that for Python of what only kernels call, that for kernels of what only
# Python calls. Losses and update rules have both. (An option that is not given is inherited from the caller.)
PASSED = {"no_cpython_wrapper": True}
CALLED = {"no_cfunc_wrapper": True}
ENTRIES = {"watch": PASSED, "run": CALLED, "parts": CALLED, "evaluate": CALLED, "reduced": CALLED}

KERNEL: dict[str, Any] = {"pipeline_class": Kernel, **OPTIONS}

# Functions of kernels: `inline` is copied to each call, `helper` where LLVM thinks it pays, `apart` nowhere.
LINKED: dict[str, Any] = {"pipeline_class": Linked, **PASSED, **CALLED}
APART: dict[str, Any] = {**LINKED, "pipeline_class": Apart, "forceinline": False}

inline = numba.njit(forceinline=True, **LINKED, **OPTIONS)
helper = numba.njit(forceinline=False, **LINKED, **OPTIONS)
apart = numba.njit(**APART, **OPTIONS)
allocating_apart = numba.njit(**APART, **ALLOCATING)


def allocates(function: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a kernel that makes arrays, for `compiled`."""
    function.allocates = True  # type: ignore[attr-defined]
    return function


class Chain(NamedTuple):
    """A problem as the kernels see it; `table` rows are H, W1 ... WL.

    Entry j of the state is one number, or `lanes` adjacent ones: one for each run of an ensemble. Rows and columns
    count entries, offsets count numbers. To a head the columns of all runs are columns of one matrix.
    """

    lanes: int
    table: np.ndarray  # int64 (L + 1, 3): offset, rows, columns
    trained: np.ndarray  # int64 (L + 2,): 1 where H, W1 ... WL, b is trained
    bias: int  # offset of b, -1 without
    relu: int
    segments: np.ndarray  # int64 (K + 1,): samples of class k are segments[k] ... segments[k+1] - 1
    labels: np.ndarray  # int64 (N,)
    targets: np.ndarray  # (K, N), or (0, 0) where labels are enough
    spans: np.ndarray  # int64 (K + 1,): segments as the head counts them, times lanes
    goals: np.ndarray  # targets as the head reads them, (K, N lanes)
    parameters: np.ndarray  # of the loss
    scale: float  # factor of the sum over samples; 0 means 1/(samples of the batch)
    lowest: int  # layers that the backward pass leaves out: 0 if H is trained


class Bounds(NamedTuple):
    """Room for the watch."""

    lines: np.ndarray  # float64: three numbers per layer and lane, and two per column
    before: np.ndarray  # inputs of the ReLU of one layer


class Buffers(NamedTuple):
    """Room for inputs X and derivatives D of all layers; Z and R are the logits' part of each for all samples."""

    X: np.ndarray
    D: np.ndarray
    Z: np.ndarray  # (K, N lanes)
    R: np.ndarray  # (K, N lanes)
    one: np.ndarray  # (K, N): logits of one run
    work: np.ndarray  # (3 N lanes,)
    bounds: Bounds
    columns: np.ndarray  # int64 (N,): 0 ... N - 1


class Step(NamedTuple):
    """What the loop needs to take steps: hyper-parameters, decay, and the block table of the trained blocks.

    A row is one number for each lane, filled up with repetitions to a whole vector.
    """

    hyper: np.ndarray  # rows for our rules, a user's parameters as given
    decay: np.ndarray  # three rows per block: what the rule adds, shrinks by before the step, and after it
    coupled: np.ndarray  # per trained number
    decoupled: np.ndarray
    has_coupled: int
    adds_coupled: int  # whether the loop adds coupled decay to the gradient; the rule does it otherwise
    shrinks: int  # whether the loop applies decoupled decay; the rule does it otherwise
    shrink_after: int
    scale_free: int
    elementwise: int
    buffers: int  # how many the rule keeps: averages of gradients in m, and of their squares in v
    table: np.ndarray  # int64 (trained blocks, 3): offset, rows (times lanes), columns


class Records(NamedTuple):
    """Where recorded steps go."""

    when: np.ndarray  # int64: steps to record
    states: np.ndarray  # (runs, records, trained size)
    fit: np.ndarray  # float64 (runs, records)
    penalty: np.ndarray


class Columns(NamedTuple):
    """The parts that the samples of a run are cut into: their columns of H, and what goes with them."""

    ends: np.ndarray  # int64 (parts + 1,): samples of part p are ends[p] ... ends[p+1] - 1
    spans: np.ndarray  # int64 (parts, K + 1): segments of each
    targets: np.ndarray  # flat, those of each part as the head reads them
    H: np.ndarray  # flat, part by part
    m: np.ndarray  # of H in the same places, empty where H is frozen
    v: np.ndarray
    tables: np.ndarray  # int64 (parts, 1, 3): H of each part as the one block of a step
    decay: np.ndarray  # of such a step
    coupled: np.ndarray  # (1,): coupled decay of H
    offset: int  # of H in the state of the run
    samples: int  # of the run


class Share(NamedTuple):
    """What one thread has to itself. Its state holds all blocks but H, the trained ones first."""

    first: int  # 1 for the thread that writes the records of the weights
    order: np.ndarray  # int64 (parts,): in which it looks for parts that nobody has taken
    blocks: np.ndarray  # int64 (blocks but H, 3): offset in the state of the run, offset here, size
    G: np.ndarray  # room for the gradient by H of one part
    X: np.ndarray  # room for inputs and derivatives of all layers, for one part
    D: np.ndarray
    work: np.ndarray


class Meeting(NamedTuple):
    """What threads tell each other at every step, with room for two steps."""

    threads: int
    arrived: np.ndarray  # int64 (1,): arrivals so far
    taken: np.ndarray  # int64 (parts,): of how many steps each part was taken by some thread
    said: np.ndarray  # float64 (2, parts, 3): what the head reports, fit and coupled penalty
    gradients: np.ndarray  # (2, parts, trained numbers but H): of each part


REALS = {"float64": float64, "float32": float32}


class Signatures(NamedTuple):
    """Signatures of all kernels at one precision."""

    head: Any
    value: Any
    update: Any
    watch: Any
    run: Any
    parts: Any
    evaluate: Any
    reduced: Any
    hessian: Any


@lru_cache(maxsize=2)
def signatures(dtype: str) -> Signatures:
    """Signatures at a precision, built from examples of the tuples."""
    real = REALS[dtype]
    vec, mat, ints, table = real[::1], real[:, ::1], int64[::1], int64[:, ::1]
    some, matrix = np.zeros(1, dtype), np.zeros((1, 1), dtype)
    index, indices = np.zeros(1, np.int64), np.zeros((1, 3), np.int64)
    scalar = np.dtype(dtype).type(0)
    # numba types a plain float as float64; scale is cast by the reader
    chain = numba.typeof(Chain(1, indices, index, 0, 0, index, index, matrix, index, matrix, some, 0.0, 0))
    buffers = numba.typeof(
        Buffers(some, some, matrix, matrix, matrix, some, Bounds(np.zeros(1), some), index)
    )
    bounds = numba.typeof(Bounds(np.zeros(1), some))
    step = numba.typeof(Step(some, some, some, some, 0, 0, 0, 0, 0, 0, 0, indices))
    records = numba.typeof(Records(index, matrix[None], np.zeros((1, 1)), np.zeros((1, 1))))
    assert numba.typeof(scalar) == real
    head = int64(mat, ints, mat, vec, real, mat, vec)
    value = float64(mat, ints, mat, vec, real)
    update = types.void(vec, vec, vec, vec, vec, int64, int64, vec, vec, table)
    watch = int64(chain, step, vec, vec, vec, int64, vec, vec, ints, int64, bounds, ints)
    function = types.FunctionType
    run = types.void(
        function(head), function(value), function(update), function(watch), chain, step, records, buffers,
        vec, vec, vec, vec, float64[::1], vec, table, int64, int64, ints,
    )  # fmt: skip
    columns = numba.typeof(Columns(index, indices, some, some, some, some, indices[None], some, some, 0, 0))
    share = numba.typeof(Share(0, index, indices, some, some, some, some))
    meeting = numba.typeof(Meeting(1, index, index, np.zeros((2, 1, 3)), np.zeros((2, 1, 1), dtype)))
    parts = types.void(
        function(head), function(value), function(update), chain, step, records, columns, share, meeting,
        vec, vec, vec, vec, vec, int64, int64, ints,
    )  # fmt: skip
    evaluate = float64(function(head), function(value), chain, buffers, vec, vec)
    reduced = types.void(
        function(update), step, records, vec, ints, mat,
        vec, vec, vec, vec, float64[::1], vec, int64, int64, ints,
    )  # fmt: skip
    hessian = types.void(chain, buffers, buffers, vec, vec, vec, vec, vec)
    return Signatures(head, value, update, watch, run, parts, evaluate, reduced, hessian)


compile_seconds = {"total": 0.0}
_lock = threading.RLock()


@cache
def compiled(function: Callable[..., Any], kind: str, dtype: str, keep: bool = True) -> Any:
    """Compile one kernel at one precision, or load it from the disk cache.

    While it compiles, numba's global cache folder points to ours; a lock keeps our own threads apart.

    Parameters
    ----------
    function : callable
        Plain Python function.
    kind : str
        Field of `Signatures`.
    dtype : str
        Precision.
    keep : bool
        Whether to use the disk cache; a user's function is compiled anew in each process, and may make arrays.
    """
    signature = getattr(signatures(dtype), kind)
    options = ALLOCATING if not keep or getattr(function, "allocates", False) else KERNEL
    options = {**options, **ENTRIES.get(kind, {})}
    with _lock, interrupt_deferred():
        begin = time.perf_counter()
        try:
            place = folder() if keep else None
            if place is None:
                return numba.njit(signature, **options)(function)
            try:
                return _compiled_in(place, function, signature, options)
            except NumbaError:
                raise
            except Exception as error:
                # a damaged or full cache must not stop a run: start it afresh, and do without it this time
                if not isinstance(error, OSError):
                    shutil.rmtree(place, ignore_errors=True)
                return numba.njit(signature, **options)(function)
        finally:
            compile_seconds["total"] += time.perf_counter() - begin


def _compiled_in(place: Path, function: Callable[..., Any], signature: Any, options: dict[str, Any]) -> Any:
    before = numba.config.CACHE_DIR
    try:
        numba.config.CACHE_DIR = str(place)
        return numba.njit(signature, cache=True, **options)(function)
    finally:
        numba.config.CACHE_DIR = before


@contextmanager
def interrupt_deferred() -> Iterator[None]:
    """Hold Ctrl-C back until the block ends: inside the callbacks of LLVM and numba it would be lost."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed: list[Any] = []
    before = signal.getsignal(signal.SIGINT)
    if before is None:  # not installed from Python: cannot be put back
        yield
        return
    signal.signal(signal.SIGINT, lambda *arguments: pressed.append(arguments))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if pressed and callable(before):
            before(*pressed[0])


def user_compiled(function: Callable[..., Any], kind: str, dtype: str, name: str) -> Any:
    """Compile a kernel around a user's function, or say in one sentence why it does not compile.

    Raises
    ------
    IncompatibleError
        With the line of numba's message that names the cause.
    """
    try:
        return compiled(function, kind, dtype, keep=False)
    except (NumbaError, UnsupportedBytecodeError) as error:  # the second is no NumbaError
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        telling = [
            line
            for line in lines
            if not line.startswith(("Failed in", "During", "File", "<source", "^", "-"))
        ]
        cause = (telling or lines or ["no reason given"])[0]
        form = f"help(ufm.{name.partition('.')[0]}) shows its arguments"
        raise IncompatibleError(
            f"{name} does not compile with numba: {cause.rstrip('.')}; next: {form}."
        ) from None
