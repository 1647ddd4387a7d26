"""Matrix products inside flat vectors, by the BLAS that scipy brings.

Called without making array views: a view costs as much as a product of 4 x 4 matrices.
"""

from __future__ import annotations

import numpy as np
from llvmlite import binding, ir
from numba import config, types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import intrinsic

from ufm.kernels import blas

GEMM = {types.float64: "dgemm", types.float32: "sgemm"}


def _symbol(name):
    """Under which compiled code, that of a former process too, finds a function of BLAS."""
    return f"ufm_{name}"


with blas.importable():
    import numba.np.arraymath  # noqa: F401 - would import all of scipy.linalg to see whether there is a BLAS

if not config.DISABLE_JIT:
    for _name in GEMM.values():
        binding.add_symbol(_symbol(_name), blas.address(_name))


@intrinsic
def _gemm(typingctx, x, ox, tx, y, oy, ty, out, oo, rows, inner, cols):
    arrays = (x, y, out)
    if not all(isinstance(a, types.Array) and a.ndim == 1 and a.layout == "C" for a in arrays):
        raise TypingError("flat contiguous vectors expected")
    if len({a.dtype for a in arrays}) != 1 or x.dtype not in GEMM:
        raise TypingError("vectors of one precision expected")

    def codegen(context, builder, signature, arguments):
        x, ox, tx, y, oy, ty, out, oo, rows, inner, cols = arguments
        char, count = ir.IntType(8), ir.IntType(32)
        real = context.get_value_type(signature.args[0].dtype)
        # two letters, three sizes, alpha, x and y with their row lengths, beta, out with its own: all by reference
        shape = [char] * 2 + [count] * 3 + [real, real, count, real, count, real, real, count]
        function = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(ir.VoidType(), [kind.as_pointer() for kind in shape]),
            _symbol(GEMM[signature.args[0].dtype]),
        )

        def at(array_type, array, offset):
            return builder.gep(context.make_array(array_type)(context, builder, array).data, [offset])

        def held(value):
            return cgutils.alloca_once_value(builder, value)

        def size(value):
            return held(builder.trunc(value, count))

        def letter(transposed):
            test = builder.icmp_unsigned("!=", transposed, ir.Constant(transposed.type, 0))
            return test, held(builder.select(test, ir.Constant(char, ord("t")), ir.Constant(char, ord("n"))))

        # row-major out = x y is column-major out^T = y^T x^T
        y_flipped, y_letter = letter(ty)
        x_flipped, x_letter = letter(tx)
        builder.call(
            function,
            [
                y_letter, x_letter, size(cols), size(rows), size(inner), held(ir.Constant(real, 1.0)),
                at(signature.args[3], y, oy), size(builder.select(y_flipped, inner, cols)),
                at(signature.args[0], x, ox), size(builder.select(x_flipped, rows, inner)),
                held(ir.Constant(real, 0.0)), at(signature.args[6], out, oo), size(cols),
            ],
        )  # fmt: skip
        return context.get_dummy_value()

    integer = types.intp
    signature = types.void(x, integer, integer, y, integer, integer, out, integer, integer, integer, integer)
    return signature, codegen


def _interpreted(x, ox, tx, y, oy, ty, out, oo, rows, inner, cols):
    left = (
        x[ox : ox + rows * inner].reshape((inner, rows)).T
        if tx
        else x[ox : ox + rows * inner].reshape((rows, inner))
    )
    right = (
        y[oy : oy + inner * cols].reshape((cols, inner)).T
        if ty
        else y[oy : oy + inner * cols].reshape((inner, cols))
    )
    out[oo : oo + rows * cols] = np.dot(left, right).ravel()


# product(x, ox, tx, y, oy, ty, out, oo, rows, inner, cols): the rows x cols matrix at out[oo:] becomes the product
# of the rows x inner matrix at x[ox:] and the inner x cols matrix at y[oy:], each stored transposed if tx, ty
product = _interpreted if config.DISABLE_JIT else _gemm
