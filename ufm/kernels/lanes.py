"""Matrix products of LANES independent runs at once: the innermost axis is the run.

Entry (i, j) of a rows x cols matrix that begins at offset o is the LANES adjacent numbers from o + (i cols + j) LANES
on, one for each run. Each sum is accumulated in order of the inner index, lane by lane, so that a run has the
same bits in whatever lane it sits and whatever runs share its batch; nan and inf stay in their lane.

LLVM's loop vectoriser does not find this loop at runtime sizes, so the innermost part is written as LLVM vectors: a
tile of the result is held in registers while the inner index runs. LLVM splits the vectors where the processor's
are shorter.
"""

from __future__ import annotations

import math

import numpy as np
from llvmlite import ir
from numba import config, types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import intrinsic

from ufm.kernels.contract import apart, inline
from ufm.kernels.vectors import LONG

LANES = 16
ALIGNMENT = 64  # bytes: a cache line, and the longest vector that a processor loads


def aligned(shape, dtype="float64"):
    """Zeros whose first entry lies on a cache line; `product` is for such vectors and no others.

    Parameters
    ----------
    shape : int or tuple of int
    dtype : {"float64", "float32"}

    Returns
    -------
    ndarray
        C-ordered and writable.

    Examples
    --------
    >>> aligned((10, 4, LANES)).ctypes.data % ALIGNMENT
    0
    """
    dtype = np.dtype(dtype)
    sizes = (shape,) if isinstance(shape, int | np.integer) else tuple(shape)
    length = math.prod(sizes) * dtype.itemsize
    room = np.zeros(length + ALIGNMENT, np.uint8)
    skip = -room.ctypes.data % ALIGNMENT
    return room[skip : skip + length].view(dtype).reshape(sizes)


# Tiles of TALL x WIDE entries with VECTOR lanes each fill the registers: 24 of 32 with AVX-512 or NEON, 12 of 16 with
# AVX2. The bits do not depend on the choice.
VECTOR, TALL, WIDE = (16, 4, 3) if LONG else (8, 2, 3)


def _emit_tile(builder, height, width, real, x, x_row, x_inner, y, y_inner, y_col, out, out_row, inner):
    """Loop over the inner index with height x width sums in registers, then store them."""
    word, vector = inner.type, ir.VectorType(real, VECTOR)
    name = f"llvm.fmuladd.v{VECTOR}f{32 if isinstance(real, ir.FloatType) else 64}"
    # fused where the processor can, else a product and a sum; LLVM never fuses a * b + c by itself
    multiply_add = cgutils.get_or_insert_function(builder.module, ir.FunctionType(vector, [vector] * 3), name)
    alignment = min(ALIGNMENT, VECTOR * (4 if isinstance(real, ir.FloatType) else 8))

    def at(pointer, step, count):
        place = builder.gep(pointer, [builder.mul(step, ir.Constant(word, count))])
        return builder.bitcast(place, vector.as_pointer())

    before = builder.block
    loop, after = builder.append_basic_block("tile"), builder.append_basic_block("tile.store")
    builder.branch(loop)
    builder.position_at_end(loop)
    p, x_now, y_now = builder.phi(word), builder.phi(x.type), builder.phi(y.type)
    sums = [[builder.phi(vector) for _ in range(width)] for _ in range(height)]
    ys = [builder.load(at(y_now, y_col, c), align=alignment) for c in range(width)]
    added = []
    for r in range(height):
        factor = builder.load(at(x_now, x_row, r), align=alignment)
        added.append([builder.call(multiply_add, [factor, ys[c], sums[r][c]]) for c in range(width)])
    following = builder.add(p, ir.Constant(word, 1))
    zero = ir.Constant(vector, [0.0] * VECTOR)
    pairs = [
        (p, ir.Constant(word, 0), following),
        (x_now, x, builder.gep(x_now, [x_inner])),
        (y_now, y, builder.gep(y_now, [y_inner])),
        *((sums[r][c], zero, added[r][c]) for r in range(height) for c in range(width)),
    ]
    for phi, first, then in pairs:
        phi.add_incoming(first, before)
        phi.add_incoming(then, loop)
    builder.cbranch(builder.icmp_signed("<", following, inner), loop, after)
    builder.position_at_end(after)
    for r in range(height):
        row = builder.gep(out, [builder.mul(out_row, ir.Constant(word, r))])
        for c in range(width):
            builder.store(added[r][c], at(row, ir.Constant(word, LANES), c), align=alignment)


@intrinsic
def _tile(typingctx, height, width, x, ox, x_row, x_inner, y, oy, y_inner, y_col, out, oo, out_row, inner):
    """VECTOR lanes of a tile of height <= TALL times width <= WIDE entries; steps are counted in numbers."""
    arrays = (x, y, out)
    if not all(isinstance(a, types.Array) and a.ndim == 1 and a.layout == "C" for a in arrays):
        raise TypingError("flat contiguous vectors expected")
    if len({a.dtype for a in arrays}) != 1:
        raise TypingError("vectors of one precision expected")

    def codegen(context, builder, signature, arguments):
        height, width, x, ox, x_row, x_inner, y, oy, y_inner, y_col, out, oo, out_row, inner = arguments
        real = context.get_value_type(signature.args[2].dtype)

        def at(position, array, offset):
            data = context.make_array(signature.args[position])(context, builder, array).data
            return builder.gep(data, [offset])

        x, y, out = at(2, x, ox), at(6, y, oy), at(10, out, oo)
        done, start = builder.append_basic_block("tiled"), builder.block
        cases = []
        for h in range(1, TALL + 1):
            for w in range(1, WIDE + 1):
                block = builder.append_basic_block(f"tile.{h}.{w}")
                builder.position_at_end(block)
                _emit_tile(builder, h, w, real, x, x_row, x_inner, y, y_inner, y_col, out, out_row, inner)
                builder.branch(done)
                cases.append((h * (WIDE + 1) + w, block))
        builder.position_at_end(start)
        form = builder.add(builder.mul(height, ir.Constant(height.type, WIDE + 1)), width)
        switch = builder.switch(form, done)
        for value, block in cases:
            switch.add_case(ir.Constant(height.type, value), block)
        builder.position_at_end(done)
        return context.get_dummy_value()

    n = types.intp
    return types.void(n, n, x, n, n, n, y, n, n, n, out, n, n, n), codegen


@inline
def _part(left, most):
    """Rows or columns of the next tile: at most `most`, without a thin one at the end."""
    return left if left <= most else min(most, (left + 1) >> 1)


def _compiled(x, ox, tx, y, oy, ty, out, oo, rows, inner, cols):
    x_row, x_inner = (LANES, rows * LANES) if tx else (inner * LANES, LANES)
    y_inner, y_col = (LANES, inner * LANES) if ty else (cols * LANES, LANES)
    out_row = cols * LANES
    for lane in range(0, LANES, VECTOR):
        i = 0
        while i < rows:
            height = _part(rows - i, TALL)
            j = 0
            while j < cols:
                width = _part(cols - j, WIDE)
                _tile(
                    height, width,
                    x, ox + i * x_row + lane, x_row, x_inner,
                    y, oy + j * y_col + lane, y_inner, y_col,
                    out, oo + i * out_row + j * LANES + lane, out_row, inner,
                )  # fmt: skip
                j += width
            i += height


def _interpreted(x, ox, tx, y, oy, ty, out, oo, rows, inner, cols):
    def matrix(vector, start, transposed, height, width):
        stored = (width, height, LANES) if transposed else (height, width, LANES)
        entries = vector[start : start + height * width * LANES].reshape(stored)
        return entries.transpose(1, 0, 2) if transposed else entries

    left, right = matrix(x, ox, tx, rows, inner), matrix(y, oy, ty, inner, cols)
    total = np.zeros((rows, cols, LANES), out.dtype)
    for p in range(inner):
        total += left[:, p, None] * right[p]
    out[oo : oo + total.size] = total.ravel()


# product(x, ox, tx, y, oy, ty, out, oo, rows, inner, cols): as `ufm.kernels.product.product`, for every lane; offsets
# are counted in numbers and are multiples of LANES, sizes are those of one run and at least 1
product = _interpreted if config.DISABLE_JIT else apart(_compiled)
