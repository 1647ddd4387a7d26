"""The exponential function in a form that LLVM vectorises: no branches, relative error below 4 eps."""

from __future__ import annotations

import math

import numpy as np
from llvmlite import ir
from numba import config, types
from numba.core.errors import TypingError
from numba.extending import intrinsic

from ufm.kernels.contract import inline

LOWEST = -708.0  # exp below this is not a normal float64; results there are set to 0
_ROUND = 6755399441055744.0  # 1.5 * 2^52: adding it rounds to the nearest integer
_LOG2E = 1.4426950408889634
_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10


@intrinsic
def bits_to_float(typingctx, bits):
    """Reinterpret the 64 bits of an integer as a float64."""
    if bits != types.int64:
        raise TypingError("int64 expected")

    def codegen(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.DoubleType())

    return types.float64(types.int64), codegen


@intrinsic
def float_to_bits(typingctx, number):
    """Reinterpret a float64 as the integer of its 64 bits."""
    if number != types.float64:
        raise TypingError("float64 expected")

    def codegen(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.IntType(64))

    return types.int64(types.float64), codegen


def _exp_interpreted(x):
    return math.exp(x) if x >= LOWEST else (0.0 if x < LOWEST else x)


def _exp_polynomial(x):
    """exp(x) for x <= 0; 0 below `LOWEST`, nan stays nan."""
    clipped = x
    if clipped < LOWEST:
        clipped = LOWEST
    shifted = np.float64(clipped) * _LOG2E + _ROUND
    n = shifted - _ROUND
    r = (clipped - n * _LN2_HIGH) - n * _LN2_LOW
    # Taylor polynomial of degree 13 on |r| <= log(2)/2: remainder 4e-18
    p = 1.0 / 6227020800.0
    p = p * r + 1.0 / 479001600.0
    p = p * r + 1.0 / 39916800.0
    p = p * r + 1.0 / 3628800.0
    p = p * r + 1.0 / 362880.0
    p = p * r + 1.0 / 40320.0
    p = p * r + 1.0 / 5040.0
    p = p * r + 1.0 / 720.0
    p = p * r + 1.0 / 120.0
    p = p * r + 1.0 / 24.0
    p = p * r + 1.0 / 6.0
    p = p * r + 0.5
    p = p * (r * r) + r
    # the low bits of `shifted` are the integer n: the exponent field of 2^n
    power = bits_to_float((float_to_bits(shifted) + 1023) << 52)
    result = p * power + power
    return 0.0 if x < LOWEST else result


exp = _exp_interpreted if config.DISABLE_JIT else inline(_exp_polynomial)
