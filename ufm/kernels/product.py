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


def shared(builder, name, shape, emit):
    """A function of the module that is being built, whose body `emit(builder, arguments)` writes at its first use.

    Modules that are linked together share it by its name, so that LLVM meets its body once.
    """
    function = cgutils.get_or_insert_function(builder.module, shape, name)
    if function.is_declaration:
        function.linkage = "linkonce_odr"
        inside = ir.IRBuilder(function.append_basic_block())
        emit(inside, function.args)
        inside.ret_void()
    return function


def product_signature(x, y, out):
    """Numba's signature of a product, and the name of BLAS's function at its precision."""
    arrays, integer = (x, y, out), types.intp
    if not all(isinstance(a, types.Array) and a.ndim == 1 and a.layout == "C" for a in arrays):
        raise TypingError("flat contiguous vectors expected")
    if len({a.dtype for a in arrays}) != 1 or x.dtype not in GEMM:
        raise TypingError("vectors of one precision expected")
    signature = types.void(x, integer, integer, y, integer, integer, out, integer, integer, integer, integer)
    return signature, GEMM[x.dtype]


def pointers(context, builder, signature, arguments):
    """What a product gets as (x, tx, y, ty, out, rows, inner, cols): first entries, truth values and sizes."""
    x, ox, tx, y, oy, ty, out, oo, *sizes = arguments

    def place(position, array, offset):
        data = context.make_array(signature.args[position])(context, builder, array).data
        return builder.gep(data, [offset])

    tx, ty = (cgutils.is_true(builder, flag) for flag in (tx, ty))
    return place(0, x, ox), tx, place(3, y, oy), ty, place(6, out, oo), *sizes


def gemm(builder, name, real):
    """Function of (x, tx, y, ty, out, rows, inner, cols) that calls BLAS."""
    char, count, word = ir.IntType(8), ir.IntType(32), ir.IntType(64)
    pointer, flag = real.as_pointer(), ir.IntType(1)

    def emit(builder, arguments):
        x, tx, y, ty, out, rows, inner, cols = arguments
        # two letters, three sizes, alpha, x and y with their row lengths, beta, out with its own: all by reference
        shape = [char] * 2 + [count] * 3 + [real, real, count, real, count, real, real, count]
        blas_shape = ir.FunctionType(ir.VoidType(), [kind.as_pointer() for kind in shape])
        blas_gemm = cgutils.get_or_insert_function(builder.module, blas_shape, _symbol(name))

        def held(value):
            return cgutils.alloca_once_value(builder, value)

        def size(value):
            return held(builder.trunc(value, count))

        def letter(transposed):
            return held(builder.select(transposed, ir.Constant(char, ord("t")), ir.Constant(char, ord("n"))))

        # row-major out = x y is column-major out^T = y^T x^T
        builder.call(
            blas_gemm,
            [
                letter(ty), letter(tx), size(cols), size(rows), size(inner), held(ir.Constant(real, 1.0)),
                y, size(builder.select(ty, inner, cols)), x, size(builder.select(tx, rows, inner)),
                held(ir.Constant(real, 0.0)), out, size(cols),
            ],
        )  # fmt: skip

    shape = ir.FunctionType(ir.VoidType(), [pointer, flag, pointer, flag, pointer, word, word, word])
    return shared(builder, f"ufm_{name}_of_rows", shape, emit)


@intrinsic
def _product(typingctx, x, ox, tx, y, oy, ty, out, oo, rows, inner, cols):
    signature, name = product_signature(x, y, out)

    def codegen(context, builder, signature, arguments):
        found = pointers(context, builder, signature, arguments)
        builder.call(gemm(builder, name, found[0].type.pointee), found)
        return context.get_dummy_value()

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
product = _interpreted if config.DISABLE_JIT else _product
