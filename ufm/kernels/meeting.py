"""Where the threads of one run wait for each other and share out its parts: numbers that grow in one piece.

A step of a large run takes less than a millisecond; to put a thread to sleep and to wake it takes a good part of that.
So those who are early look again and again at how many have arrived. Only when some others have been kept from running
for long do they let them have the processor: another program, once let in, keeps it for many steps.
"""

from __future__ import annotations

import ctypes
import sys

from llvmlite import binding, ir
from numba import config, types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import intrinsic

from ufm.kernels.contract import helper

LOOKS = 100_000  # before others are let through: some tenths of a millisecond
GIVE_WAY = "ufm_give_way"
ALONE = bool(config.DISABLE_JIT)  # interpreted, a thread would never see the others arrive


def _give_way():
    """The system's function that lets other threads run first."""
    if sys.platform == "win32":
        return ctypes.windll.kernel32.SwitchToThread
    return ctypes.CDLL(None).sched_yield


if not ALONE:
    binding.add_symbol(GIVE_WAY, ctypes.cast(_give_way(), ctypes.c_void_p).value)


def _checked(counter):
    if not (isinstance(counter, types.Array) and counter.dtype == types.int64 and counter.layout == "C"):
        raise TypingError("contiguous int64 expected")


def _place(context, builder, signature, arguments):
    return context.make_array(signature.args[0])(context, builder, arguments[0]).data


@intrinsic
def _arrive(typingctx, counter):
    """Add 1, in one piece whatever other threads do."""
    _checked(counter)

    def codegen(context, builder, signature, arguments):
        place = _place(context, builder, signature, arguments)
        builder.atomic_rmw("add", place, ir.Constant(ir.IntType(64), 1), "seq_cst")
        return context.get_dummy_value()

    return types.void(counter), codegen


@intrinsic
def _arrivals(typingctx, counter):
    """The number as it is now, with all that was written before it grew so far."""
    _checked(counter)

    def codegen(context, builder, signature, arguments):
        return builder.load_atomic(_place(context, builder, signature, arguments), "seq_cst", 8)

    return types.int64(counter), codegen


@intrinsic
def _let_others_run(typingctx):
    def codegen(context, builder, signature, arguments):
        shape = ir.FunctionType(ir.IntType(32), [])
        builder.call(cgutils.get_or_insert_function(builder.module, shape, GIVE_WAY), [])
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def _take(typingctx, counters, index, expected):
    """Add 1 to one of the numbers if it is as expected, in one piece; whether it was."""
    _checked(counters)

    def codegen(context, builder, signature, arguments):
        place = builder.gep(_place(context, builder, signature, arguments), [arguments[1]])
        following = builder.add(arguments[2], ir.Constant(ir.IntType(64), 1))
        pair = builder.cmpxchg(place, arguments[2], following, "seq_cst", "seq_cst")
        return builder.extract_value(pair, 1)

    return types.boolean(counters, types.int64, types.int64), codegen


@helper
def _meet(counter, expected):
    _arrive(counter)
    looks = 0
    while _arrivals(counter) < expected:
        looks += 1
        if looks > LOOKS:
            _let_others_run()


def _interpreted_meet(counter, expected):
    """One thread alone waits for nobody."""
    counter[0] += 1
    assert counter[0] == expected


def _interpreted_take(counters, index, expected):
    counters[index] += 1
    return True


# take(counters, index, expected): add 1 to one of the numbers if it is as expected; True for the one thread that did
take = _interpreted_take if ALONE else _take
# meet(counter, expected): add 1 to the counter and wait until it has grown to what is expected
meet = _interpreted_meet if ALONE else _meet
