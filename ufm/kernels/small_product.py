"""The matrix product of one run where BLAS is slow: x times the transpose of y, with few entries.

The gradient by a layer's weights has this form. BLAS spends two to three times as long on it as on the other two
products of a layer, because neither factor has the entries of a row of the result side by side. Here WIDTH of them
are collected while the inner index runs. Sums run in order of the inner index.
"""

from __future__ import annotations

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
LARGEST = 14_000  # multiplications up to which this is faster than BLAS


def _emit_rows(builder, height, width, real, x, x_row, y, y_row, out, out_row, inner):
    """Sums of `height` rows and WIDTH columns, of which `width` (at most WIDTH) are there and stored."""
    vector, word = ir.VectorType(real, WIDTH), inner.type
    name = f"llvm.fmuladd.v{WIDTH}f{32 if isinstance(real, ir.FloatType) else 64}"
    multiply_add = cgutils.get_or_insert_function(builder.module, ir.FunctionType(vector, [vector] * 3), name)
    index = ir.IntType(32)
    nothing, zero = ir.Constant(vector, ir.Undefined), ir.Constant(vector, [0.0] * WIDTH)

    # where columns are missing the last one is read again
    last = builder.sub(width, ir.Constant(word, 1))
    y_rows = []
    for k in range(WIDTH):
        column = ir.Constant(word, k)
        column = builder.select(builder.icmp_signed("<", column, last), column, last)
        y_rows.append(builder.gep(y, [builder.mul(y_row, column)]))
    x_rows = [builder.gep(x, [builder.mul(x_row, ir.Constant(word, r))]) for r in range(height)]
    before = builder.block
    loop, after = builder.append_basic_block("rows"), builder.append_basic_block("rows.store")
    builder.branch(loop)
    builder.position_at_end(loop)
    p = builder.phi(word)
    sums = [builder.phi(vector) for _ in range(height)]
    factors = nothing
    for k in range(WIDTH):
        number = builder.load(builder.gep(y_rows[k], [p]))
        factors = builder.insert_element(factors, number, ir.Constant(index, k))
    added = []
    for r in range(height):
        number = builder.load(builder.gep(x_rows[r], [p]))
        added.append(builder.call(multiply_add, [spread(builder, number), factors, sums[r]]))
    following = builder.add(p, ir.Constant(word, 1))
    pairs = [(p, ir.Constant(word, 0), following), *zip(sums, [zero] * height, added, strict=True)]
    for phi, first, then in pairs:
        phi.add_incoming(first, before)
        phi.add_incoming(then, loop)
    builder.cbranch(builder.icmp_signed("<", following, inner), loop, after)
    builder.position_at_end(after)
    numbers = ir.Constant(ir.VectorType(word, WIDTH), list(range(WIDTH)))
    there = builder.icmp_signed("<", numbers, spread(builder, width))
    size = 4 if isinstance(real, ir.FloatType) else 8
    shape = ir.FunctionType(ir.VoidType(), [vector, vector.as_pointer(), index, there.type])
    store = cgutils.get_or_insert_function(builder.module, shape, f"llvm.masked.store.v{WIDTH}f{8 * size}.p0")
    for r in range(height):
        place = builder.gep(out, [builder.mul(out_row, ir.Constant(word, r))])
        place = builder.bitcast(place, vector.as_pointer())
        builder.call(store, [added[r], place, ir.Constant(index, size), there])


def _by_rows(builder, name, real):
    """Function of (x, y, out, rows, inner, cols) that fills the result tile by tile."""
    pointer, word = real.as_pointer(), ir.IntType(64)

    def emit(builder, arguments):
        x, y, out, rows, inner, cols = arguments
        zero, width, at = ir.Constant(word, 0), ir.Constant(word, WIDTH), cgutils.alloca_once(builder, word)
        with cgutils.for_range_slice(builder, zero, cols, width, word) as (j, _):
            y_now, left = builder.gep(y, [builder.mul(j, inner)]), builder.sub(cols, j)
            builder.store(zero, at)
            for height in HEIGHTS:
                test, tile, after = (builder.append_basic_block(f"{part}.{height}") for part in PARTS)
                builder.branch(test)
                builder.position_at_end(test)
                i = builder.load(at)
                following = builder.add(i, ir.Constant(word, height))
                builder.cbranch(builder.icmp_signed("<=", following, rows), tile, after)
                builder.position_at_end(tile)
                x_now = builder.gep(x, [builder.mul(i, inner)])
                out_now = builder.gep(out, [builder.add(builder.mul(i, cols), j)])
                _emit_rows(builder, height, left, real, x_now, inner, y_now, inner, out_now, cols, inner)
                builder.store(following, at)
                builder.branch(test)
                builder.position_at_end(after)

    shape = ir.FunctionType(ir.VoidType(), [pointer, pointer, pointer, word, word, word])
    return shared(builder, f"ufm_{name}_by_rows", shape, emit)


@intrinsic
def _chosen(typingctx, x, ox, tx, y, oy, ty, out, oo, rows, inner, cols):
    signature, name = product_signature(x, y, out)

    def codegen(context, builder, signature, arguments):
        x, tx, y, ty, out, rows, inner, cols = pointers(context, builder, signature, arguments)
        real = x.type.pointee
        size = builder.mul(builder.mul(rows, inner), cols)
        few = builder.icmp_signed("<=", size, ir.Constant(size.type, LARGEST))
        with builder.if_else(builder.and_(builder.and_(ty, builder.not_(tx)), few)) as (here, by_blas):
            with here:
                builder.call(_by_rows(builder, name, real), [x, y, out, rows, inner, cols])
            with by_blas:
                builder.call(gemm(builder, name, real), [x, tx, y, ty, out, rows, inner, cols])
        return context.get_dummy_value()

    return signature, codegen


# product(x, ox, tx, y, oy, ty, out, oo, rows, inner, cols): as `ufm.kernels.product.product`, by the faster way
product = blas_product if config.DISABLE_JIT else _chosen
