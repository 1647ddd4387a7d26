"""Matrix products inside flat vectors, by the BLAS that scipy brings.

Called without making array views: a view costs as much as a product of 4 x 4 matrices. This leans on three things
inside numba that np.dot itself is compiled to and that have kept their form from numba 0.59 to 0.68: the C function
`numba_xxgemm`, which finds scipy's BLAS at its first call, `ensure_blas`, and `get_blas_kind`.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import config, types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import intrinsic
from numba.np.linalg import ensure_blas, get_blas_kind


@intrinsic
def _gemm(typingctx, x, ox, tx, y, oy, ty, out, oo, rows, inner, cols):
    arrays = (x, y, out)
    if not all(isinstance(a, types.Array) and a.ndim == 1 and a.layout == "C" for a in arrays):
        raise TypingError("flat contiguous vectors expected")
    if len({a.dtype for a in arrays}) != 1:
        raise TypingError("vectors of one precision expected")
    ensure_blas()

    def codegen(context, builder, signature, arguments):
        x, ox, tx, y, oy, ty, out, oo, rows, inner, cols = arguments
        word, char, pointer = context.get_value_type(types.intp), ir.IntType(8), ir.IntType(8).as_pointer()
        real = context.get_value_type(signature.args[0].dtype)
        # kind, two letters, three sizes, alpha, x and y with their row lengths, beta, out with its own
        matrix = [pointer, word]
        shape = [*[char] * 3, *[word] * 3, pointer, *matrix * 2, pointer, *matrix]
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(ir.IntType(32), shape), "numba_xxgemm"
        )

        def at(array_type, array, offset):
            data = context.make_array(array_type)(context, builder, array).data
            return builder.bitcast(builder.gep(data, [offset]), pointer)

        def constant(value):
            slot = cgutils.alloca_once_value(builder, ir.Constant(real, value))
            return builder.bitcast(slot, pointer)

        def letter(transposed):
            test = builder.icmp_unsigned("!=", transposed, ir.Constant(transposed.type, 0))
            return test, builder.select(test, ir.Constant(char, ord("t")), ir.Constant(char, ord("n")))

        # row-major out = x y is column-major out^T = y^T x^T
        y_flipped, y_letter = letter(ty)
        x_flipped, x_letter = letter(tx)
        builder.call(
            function,
            [
                ir.Constant(char, ord(get_blas_kind(signature.args[0].dtype))),
                y_letter, x_letter, cols, rows, inner, constant(1.0),
                at(signature.args[3], y, oy), builder.select(y_flipped, inner, cols),
                at(signature.args[0], x, ox), builder.select(x_flipped, rows, inner),
                constant(0.0), at(signature.args[6], out, oo), cols,
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
