"""The matrix product of one run where BLAS is slow: with few entries.

A call of BLAS costs a small product as much as its arithmetic, and x times the transpose of y, which the gradient by
a layer's weights is, two to three times as much as the other products of a layer, because neither factor has the
entries of a row of the result side by side. Here WIDTH of them are collected while the inner index runs, or loaded
at once where they are adjacent. Sums run in order of the inner index.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from llvmlite import ir
from numba import config
from numba.core import cgutils
from numba.extending import intrinsic

from ufm.kernels.product import gemm, pointers, product_signature, shared
from ufm.kernels.product import product as blas_product
from ufm.kernels.vectors import WIDTH, spread

TALL = 10  # rows of the largest tile: as many sums stay in registers
HEIGHTS = (
    TALL,
    4,
    2,
    1,
)  # of all tiles, in the order in which rows are given to them; each costs compile time
PARTS = ("rows.left", "rows.tile", "rows.done")  # of the loop over tiles of one height
# multiplications up to which this is faster than BLAS, by what is stored transposed: (x, y)
LARGEST = {(False, True): 14_000, (False, False): 3_000, (True, False): 3_000}


class _Matrix(NamedTuple):
    """Where entry (i, j) of a matrix is: i `down` + j `right` numbers from `begin`."""

    begin: Any
    down: Any
    right: Any

    def at(self, builder, i, j):
        """Pointer to an entry."""
        return builder.gep(self.begin, [builder.add(builder.mul(i, self.down), builder.mul(j, self.right))])


def _instruction(builder, name, vector, result, *arguments):
    """LLVM's instruction of that name on vectors of WIDTH numbers."""
    bits = 32 if isinstance(vector.element, ir.FloatType) else 64
    shape = ir.FunctionType(result, [argument.type for argument in arguments])
    full = name.format(f"v{WIDTH}f{bits}")
    return builder.call(cgutils.get_or_insert_function(builder.module, shape, full), arguments)


def _emit_rows(builder, height, width, real, x, y, out, inner):
    """Sums of `height` rows and WIDTH columns, of which `width` (at most WIDTH) are there and stored."""
    vector, word, index = ir.VectorType(real, WIDTH), inner.type, ir.IntType(32)
    nothing, zeros = ir.Constant(vector, ir.Undefined), ir.Constant(vector, [0.0] * WIDTH)
    zero, one = ir.Constant(word, 0), ir.Constant(word, 1)
    alignment = ir.Constant(index, 4 if isinstance(real, ir.FloatType) else 8)
    numbers = ir.Constant(ir.VectorType(word, WIDTH), list(range(WIDTH)))
    there = builder.icmp_signed("<", numbers, spread(builder, width))
    adjacent = y.right == one
    if not adjacent:  # where columns are missing the last one is read again
        last = builder.sub(width, one)
        columns = []
        for k in range(WIDTH):
            column = ir.Constant(word, k)
            column = builder.select(builder.icmp_signed("<", column, last), column, last)
            columns.append(y._replace(begin=y.at(builder, zero, column)))
    rows = [x._replace(begin=x.at(builder, ir.Constant(word, r), zero)) for r in range(height)]
    before = builder.block
    loop, after = builder.append_basic_block("rows"), builder.append_basic_block("rows.store")
    builder.branch(loop)
    builder.position_at_end(loop)
    p = builder.phi(word)
    sums = [builder.phi(vector) for _ in range(height)]
    if adjacent:
        place = builder.bitcast(y.at(builder, p, zero), vector.as_pointer())
        factors = _instruction(
            builder, "llvm.masked.load.{}.p0", vector, vector, place, alignment, there, zeros
        )
    else:
        factors = nothing
        for k in range(WIDTH):
            number = builder.load(columns[k].at(builder, p, zero))
            factors = builder.insert_element(factors, number, ir.Constant(index, k))
    added = []
    for r in range(height):
        number = spread(builder, builder.load(rows[r].at(builder, zero, p)))
        added.append(_instruction(builder, "llvm.fmuladd.{}", vector, vector, number, factors, sums[r]))
    following = builder.add(p, one)
    pairs = [(p, zero, following), *zip(sums, [zeros] * height, added, strict=True)]
    for phi, first, then in pairs:
        phi.add_incoming(first, before)
        phi.add_incoming(then, loop)
    builder.cbranch(builder.icmp_signed("<", following, inner), loop, after)
    builder.position_at_end(after)
    for r in range(height):
        place = builder.bitcast(out.at(builder, ir.Constant(word, r), zero), vector.as_pointer())
        store = "llvm.masked.store.{}.p0"
        _instruction(builder, store, vector, ir.VoidType(), added[r], place, alignment, there)


def _by_rows(builder, name, real, tx, ty):
    """Function of (x, y, out, rows, inner, cols) that fills the result tile by tile."""
    pointer, word = real.as_pointer(), ir.IntType(64)

    def emit(builder, arguments):
        x, y, out, rows, inner, cols = arguments
        zero, one, width = ir.Constant(word, 0), ir.Constant(word, 1), ir.Constant(word, WIDTH)
        at = cgutils.alloca_once(builder, word)
        x = _Matrix(x, one, rows) if tx else _Matrix(x, inner, one)
        y = _Matrix(y, one, inner) if ty else _Matrix(y, cols, one)
        out = _Matrix(out, cols, one)
        with cgutils.for_range_slice(builder, zero, cols, width, word) as (j, _):
            y_now, left = y._replace(begin=y.at(builder, zero, j)), builder.sub(cols, j)
            builder.store(zero, at)
            for height in HEIGHTS:
                test, tile, after = (builder.append_basic_block(f"{part}.{height}") for part in PARTS)
                builder.branch(test)
                builder.position_at_end(test)
                i = builder.load(at)
                following = builder.add(i, ir.Constant(word, height))
                builder.cbranch(builder.icmp_signed("<=", following, rows), tile, after)
                builder.position_at_end(tile)
                x_now = x._replace(begin=x.at(builder, i, zero))
                out_now = out._replace(begin=out.at(builder, i, j))
                _emit_rows(builder, height, left, real, x_now, y_now, out_now, inner)
                builder.store(following, at)
                builder.branch(test)
                builder.position_at_end(after)

    shape = ir.FunctionType(ir.VoidType(), [pointer, pointer, pointer, word, word, word])
    return shared(builder, f"ufm_{name}_by_rows_{'nt'[tx]}{'nt'[ty]}", shape, emit)


@intrinsic
def _chosen(typingctx, x, ox, tx, y, oy, ty, out, oo, rows, inner, cols):
    signature, name = product_signature(x, y, out)

    def codegen(context, builder, signature, arguments):
        x, tx, y, ty, out, rows, inner, cols = pointers(context, builder, signature, arguments)
        real = x.type.pointee
        size = builder.mul(builder.mul(rows, inner), cols)
        done = builder.append_basic_block("product.done")
        for (of_x, of_y), largest in LARGEST.items():
            here, otherwise = (builder.append_basic_block(f"product.{part}") for part in ("rows", "blas"))
            stored = builder.and_(tx if of_x else builder.not_(tx), ty if of_y else builder.not_(ty))
            few = builder.icmp_signed("<=", size, ir.Constant(size.type, largest))
            builder.cbranch(builder.and_(stored, few), here, otherwise)
            builder.position_at_end(here)
            builder.call(_by_rows(builder, name, real, of_x, of_y), [x, y, out, rows, inner, cols])
            builder.branch(done)
            builder.position_at_end(otherwise)
        builder.call(gemm(builder, name, real), [x, tx, y, ty, out, rows, inner, cols])
        builder.branch(done)
        builder.position_at_end(done)
        return context.get_dummy_value()

    return signature, codegen


# product(x, ox, tx, y, oy, ty, out, oo, rows, inner, cols): as `ufm.kernels.product.product`, by the faster way
product = blas_product if config.DISABLE_JIT else _chosen
