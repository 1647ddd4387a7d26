"""The matrix product of one run where BLAS is slow: x times the transpose of y, with few entries.

The gradient by a layer's weights has this form. BLAS spends two to three times as long on it as on the other two
products of a layer, because neither factor has the entries of a row of the result side by side. Here WIDTH of them
are collected while the inner index runs. Sums run in order of the inner index.
"""

from __future__ import annotations

from llvmlite import ir
from numba import config, types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import intrinsic

from ufm.kernels.contract import helper, inline
from ufm.kernels.product import product as blas_product
from ufm.kernels.vectors import WIDTH, spread

TALL = 10  # rows of the largest tile: as many sums stay in registers
HEIGHTS = (1, 2, 4, TALL)  # of all tiles; each costs compile time
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


@intrinsic
def _rows(typingctx, height, width, x, ox, x_row, y, oy, y_row, out, oo, out_row, inner):
    """A tile of height rows, one of HEIGHTS, and min(width, WIDTH) columns."""
    arrays = (x, y, out)
    if not all(isinstance(a, types.Array) and a.ndim == 1 and a.layout == "C" for a in arrays):
        raise TypingError("flat contiguous vectors expected")
    if len({a.dtype for a in arrays}) != 1:
        raise TypingError("vectors of one precision expected")

    def codegen(context, builder, signature, arguments):
        height, width, x, ox, x_row, y, oy, y_row, out, oo, out_row, inner = arguments
        real = context.get_value_type(signature.args[2].dtype)

        def at(position, array, offset):
            data = context.make_array(signature.args[position])(context, builder, array).data
            return builder.gep(data, [offset])

        x, y, out = at(2, x, ox), at(5, y, oy), at(8, out, oo)
        done, start, blocks = builder.append_basic_block("summed"), builder.block, []
        for h in HEIGHTS:
            blocks.append(builder.append_basic_block(f"rows.{h}"))
            builder.position_at_end(blocks[-1])
            _emit_rows(builder, h, width, real, x, x_row, y, y_row, out, out_row, inner)
            builder.branch(done)
        builder.position_at_end(start)
        switch = builder.switch(height, done)
        for h, block in zip(HEIGHTS, blocks, strict=True):
            switch.add_case(ir.Constant(height.type, h), block)
        builder.position_at_end(done)
        return context.get_dummy_value()

    n = types.intp
    return types.void(n, n, x, n, n, y, n, n, out, n, n, n), codegen


@inline
def _height(left):
    """Rows of the next tile."""
    return TALL if left >= TALL else (4 if left >= 4 else (2 if left >= 2 else 1))


@helper
def _by_rows(x, ox, y, oy, out, oo, rows, inner, cols):
    for j in range(0, cols, WIDTH):
        i = 0
        while i < rows:
            height = _height(rows - i)
            _rows(
                height, cols - j, x, ox + i * inner, inner, y, oy + j * inner, inner,
                out, oo + i * cols + j, cols, inner,
            )  # fmt: skip
            i += height


def _chosen(x, ox, tx, y, oy, ty, out, oo, rows, inner, cols):
    if ty == 1 and tx == 0 and rows * inner * cols <= LARGEST:
        _by_rows(x, ox, y, oy, out, oo, rows, inner, cols)
    else:
        blas_product(x, ox, tx, y, oy, ty, out, oo, rows, inner, cols)


# product(x, ox, tx, y, oy, ty, out, oo, rows, inner, cols): as `ufm.kernels.product.product`, by the faster way
product = blas_product if config.DISABLE_JIT else inline(_chosen)
