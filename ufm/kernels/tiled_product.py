"""The matrix product of one run where BLAS is slow: with few entries, with a transposed factor, or with many entries.

A call of BLAS costs a small product as much as its arithmetic, and x times the transpose of y, which the gradient by
a layer's weights is, up to three times as much as the other products of a layer, because neither factor has the
entries of a row of the result side by side. A large one it copies into an order of its own before it begins, which
pays for larger matrices than those of one layer.

Here a tile of the result stays in registers while the inner index runs, over entries of y that are adjacent, or
collected: one by one for a few, else for a whole panel of columns at a time, where registers are long enough for it.
Sums run in order of the inner index in every way but BLAS's, so that their bits do not depend on the size of the tile.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any, NamedTuple

from llvmlite import ir
from numba import config
from numba.core import cgutils
from numba.extending import intrinsic

from ufm.kernels.product import gemm, pointers, product_signature, shared
from ufm.kernels.product import product as blas_product
from ufm.kernels.vectors import LONG, WIDTH, spread

# Rows of tiles, in the order in which rows are given to them (each costs compile time), by how many vectors they are
# wide: as many sums stay in registers.
WIDE = 3
HEIGHTS = {1: (10, 4, 2, 1), WIDE: (8, 4, 2, 1)}
DEPTH = 128  # of a panel of collected entries: it stays in the first cache

# What is faster was measured on one thread, against OpenBLAS 0.3.30 with AVX-512 and, for FEW, with AVX2. By precision
# and by what is stored transposed, (x, y): multiplications up to which tiles row by row are faster. With AVX-512 BLAS
# has ways of its own for small matrices.
FEW = {
    "dgemm": {(False, True): 14_000, (False, False): 3_000, (True, False): 3_000},
    "sgemm": {
        (False, True): 14_000,
        (False, False): 300 if LONG else 3_000,
        (True, False): 300 if LONG else 3_000,
    },
}
# All that follows is for long registers. Where only y is transposed:
SHORT = 32  # tiles row by row are faster for sums of fewer numbers only: BLAS takes longer ones a vector at a time
ROWS = 10  # of the result from which panels are faster, if it has ENTRIES, or PER_NUMBER for each number of a sum
ENTRIES, PER_NUMBER = 1_100, 15
# Where y is not:
MANY = 1_000_000  # multiplications above which panels are faster
LARGEST_FACTOR = 131_072  # entries of x, which each panel goes through: half of a second cache of 2 MiB
# Everywhere: multiplications above which OpenBLAS shares a product out, if it may have several threads
THREADS_ABOVE = 262_144


class _Matrix(NamedTuple):
    """Where entry (i, j) of a matrix is: i `down` + j `right` numbers from `begin`."""

    begin: Any
    down: Any
    right: Any

    def at(self, builder, i, j):
        """Pointer to an entry."""
        return builder.gep(self.begin, [builder.add(builder.mul(i, self.down), builder.mul(j, self.right))])

    def moved(self, builder, i, j):
        """The matrix that begins with an entry."""
        return self._replace(begin=self.at(builder, i, j))


_word = ir.IntType(64)
_zero, _one = ir.Constant(_word, 0), ir.Constant(_word, 1)


def _call(builder, name, vector, result, *arguments):
    """LLVM's instruction of that name on vectors of WIDTH numbers."""
    shape = ir.FunctionType(result, [argument.type for argument in arguments])
    full = name.format(f"v{WIDTH}f{_bits(vector.element)}")
    return builder.call(cgutils.get_or_insert_function(builder.module, shape, full), arguments)


def _bits(real):
    return 32 if isinstance(real, ir.FloatType) else 64


def _load(builder, place, mask):
    """The WIDTH numbers from a place on, 0 where the mask does not hold."""
    vector = ir.VectorType(place.type.pointee, WIDTH)
    zeros = ir.Constant(vector, [0.0] * WIDTH)
    alignment = ir.Constant(ir.IntType(32), _bits(vector.element) // 8)
    place = builder.bitcast(place, vector.as_pointer())
    return _call(builder, "llvm.masked.load.{}.p0", vector, vector, place, alignment, mask, zeros)


def _store(builder, numbers, place, mask):
    """Put numbers where the mask holds."""
    vector = numbers.type
    alignment = ir.Constant(ir.IntType(32), _bits(vector.element) // 8)
    place = builder.bitcast(place, vector.as_pointer())
    _call(builder, "llvm.masked.store.{}.p0", vector, ir.VoidType(), numbers, place, alignment, mask)


def _first(builder, count):
    """The mask of the first numbers, of all without a count."""
    if count is None:
        return ir.Constant(ir.VectorType(ir.IntType(1), WIDTH), [True] * WIDTH)
    numbers = ir.Constant(ir.VectorType(_word, WIDTH), list(range(WIDTH)))
    return builder.icmp_signed("<", numbers, spread(builder, count))


def _columns(builder, matrix, first, count):
    """WIDTH columns from the first on; where some are missing, the last one again."""
    found = []
    for k in range(WIDTH):
        column = ir.Constant(_word, k)
        if count is not None:
            last = builder.sub(count, _one)
            column = builder.select(builder.icmp_signed("<", column, last), column, last)
        found.append(matrix.moved(builder, _zero, builder.add(ir.Constant(_word, first), column)))
    return found


def _emit_tile(builder, height, vectors, count, x, y, out, inner, begun=None):
    """Sums of `height` rows and `vectors` times WIDTH columns, added to the numbers there where they have `begun`.

    `count` is the number of columns, if some of them may be missing. Columns that are not adjacent are collected one
    number at a time.
    """
    vector = ir.VectorType(x.begin.type.pointee, WIDTH)
    there, adjacent = _first(builder, count), y.right == _one
    offsets = [ir.Constant(_word, WIDTH * v) for v in range(vectors)]
    rows = [x.moved(builder, ir.Constant(_word, r), _zero) for r in range(height)]
    places = [[out.at(builder, ir.Constant(_word, r), offset) for offset in offsets] for r in range(height)]
    columns = [] if adjacent else _columns(builder, y, 0, count)
    if begun is None:
        former = [[ir.Constant(vector, [0.0] * WIDTH)] * vectors] * height
    else:
        mask = builder.and_(there, spread(builder, begun))
        former = [[_load(builder, place, mask) for place in of_row] for of_row in places]
    before = builder.block
    loop, after = builder.append_basic_block("tile"), builder.append_basic_block("tile.store")
    builder.branch(loop)
    builder.position_at_end(loop)
    p = builder.phi(_word)
    sums = [[builder.phi(vector) for _ in range(vectors)] for _ in range(height)]
    if adjacent:
        factors = [_load(builder, y.at(builder, p, offset), there) for offset in offsets]
    else:
        collected = ir.Constant(vector, ir.Undefined)
        for k, column in enumerate(columns):
            number = builder.load(column.at(builder, p, _zero))
            collected = builder.insert_element(collected, number, ir.Constant(ir.IntType(32), k))
        factors = [collected]
    added = []
    for row, of_row in zip(rows, sums, strict=True):
        number = spread(builder, builder.load(row.at(builder, _zero, p)))
        pairs = zip(factors, of_row, strict=True)
        added.append([_call(builder, "llvm.fmuladd.{}", vector, vector, number, *pair) for pair in pairs])
    following = builder.add(p, _one)
    phis = [(p, _zero, following)]
    for triple in zip(sums, former, added, strict=True):
        phis += zip(*triple, strict=True)
    for phi, first, then in phis:
        phi.add_incoming(first, before)
        phi.add_incoming(then, loop)
    builder.cbranch(builder.icmp_signed("<", following, inner), loop, after)
    builder.position_at_end(after)
    for of_row, sums_of_row in zip(places, added, strict=True):
        for place, numbers in zip(of_row, sums_of_row, strict=True):
            _store(builder, numbers, place, there)


@contextmanager
def _every(builder, begin, step, end):
    """Loop over begin, begin + step, ... below the end."""
    with cgutils.for_range_slice(builder, begin, end, ir.Constant(_word, step), _word) as (now, _):
        yield now


def _emit_while(builder, name, at, step, end, emit):
    """While `at` + `step` is at most `end`: `emit(at)`, then go on by `step`."""
    test, body, after = (builder.append_basic_block(f"{name}.{part}") for part in ("left", "body", "done"))
    builder.branch(test)
    builder.position_at_end(test)
    now = builder.load(at)
    following = builder.add(now, ir.Constant(_word, step))
    builder.cbranch(builder.icmp_signed("<=", following, end), body, after)
    builder.position_at_end(body)
    emit(now)
    builder.store(following, at)
    builder.branch(test)
    builder.position_at_end(after)


def _emit_rows(builder, vectors, count, x, y, out, rows, inner, begun=None):
    """Tiles one above the other, of all rows; as `_emit_tile`."""
    at = cgutils.alloca_once(builder, _word)
    builder.store(_zero, at)
    for height in HEIGHTS[vectors]:

        def tile(i, height=height):
            there = x.moved(builder, i, _zero), y, out.moved(builder, i, _zero)
            _emit_tile(builder, height, vectors, count, *there, inner, begun)

        _emit_while(builder, f"rows.{height}", at, height, rows, tile)


def _by_rows(builder, name, real, tx, ty):
    """Function of (x, y, out, rows, inner, cols) that fills the result tile by tile."""
    pointer = real.as_pointer()

    def emit(builder, arguments):
        x, y, out, rows, inner, cols = arguments
        x = _Matrix(x, _one, rows) if tx else _Matrix(x, inner, _one)
        y = _Matrix(y, _one, inner) if ty else _Matrix(y, cols, _one)
        out = _Matrix(out, cols, _one)
        with _every(builder, _zero, WIDTH, cols) as j:
            of_panel = x, y.moved(builder, _zero, j), out.moved(builder, _zero, j)
            _emit_rows(builder, 1, builder.sub(cols, j), *of_panel, rows, inner)

    shape = ir.FunctionType(ir.VoidType(), [pointer] * 3 + [_word] * 3)
    return shared(builder, f"ufm_{name}_by_rows_{'nt'[tx]}{'nt'[ty]}", shape, emit)


def _panel(builder, name, real, vectors):
    """Function that fills `vectors` times WIDTH adjacent columns of the result; a panel of one vector may lack some.

    Its arguments: x, down, right, y and its row length, out and its row length, rows, inner, columns, begun.
    """
    pointer = real.as_pointer()

    def emit(builder, arguments):
        x, down, right, y, of_y, out, of_out, rows, inner, count, begun = arguments
        x, y, out = _Matrix(x, down, right), _Matrix(y, of_y, _one), _Matrix(out, of_out, _one)
        _emit_rows(builder, vectors, count if vectors == 1 else None, x, y, out, rows, inner, begun)

    kinds = [pointer, _word, _word, pointer, _word, pointer, _word, _word, _word, _word, ir.IntType(1)]
    return _apart(builder, f"ufm_{name}_panel_{vectors}", ir.FunctionType(ir.VoidType(), kinds), emit)


def _apart(builder, name, shape, emit):
    """As `shared`, of a function that LLVM does not copy into those that call it."""
    function = shared(builder, name, shape, emit)
    function.attributes.add("noinline")
    return function


def _transposed(builder, rows):
    """WIDTH vectors of which number j holds the entries j of those given: blocks of 1, 2, 4 change places."""
    step = 1
    while step < WIDTH:
        exchanged = list(rows)
        for i in (i for i in range(WIDTH) if i & step == 0):
            for place, shift in ((i, 0), (i + step, step)):
                order = [(k & ~step) + shift + (WIDTH if k & step else 0) for k in range(WIDTH)]
                order = ir.Constant(ir.VectorType(ir.IntType(32), WIDTH), order)
                exchanged[place] = builder.shuffle_vector(rows[i], rows[i + step], order)
        rows, step = exchanged, 2 * step
    return rows


def _collect(builder, name, real, vectors):
    """Function of (y, its row length, depth, columns, room): the first numbers of rows of y, as columns in `room`."""
    pointer, width = real.as_pointer(), ir.Constant(_word, WIDTH * vectors)

    def emit(builder, arguments):
        y, of_y, depth, count, room = arguments
        room = _Matrix(room, width, _one)
        with _every(builder, _zero, WIDTH, depth) as p:
            there, matrix = _first(builder, builder.sub(depth, p)), _Matrix(builder.gep(y, [p]), _one, of_y)
            for v in range(vectors):
                columns = _columns(builder, matrix, v * WIDTH, count if vectors == 1 else None)
                rows = [_load(builder, column.begin, there) for column in columns]
                for k, row in enumerate(_transposed(builder, rows)):
                    i, j = builder.add(p, ir.Constant(_word, k)), ir.Constant(_word, v * WIDTH)
                    _store(builder, row, room.at(builder, i, j), _first(builder, None))

    shape = ir.FunctionType(ir.VoidType(), [pointer, _word, _word, _word, pointer])
    return _apart(builder, f"ufm_{name}_collect_{vectors}", shape, emit)


def _by_panels(builder, name, real, tx, ty):
    """Function of (x, y, out, rows, inner, cols) that fills the result panel by panel."""
    pointer = real.as_pointer()

    def emit(builder, arguments):
        x, y, out, rows, inner, cols = arguments
        x = _Matrix(x, _one, rows) if tx else _Matrix(x, inner, _one)
        at = cgutils.alloca_once_value(builder, _zero)
        numbers = ir.Constant(_word, WIDE * WIDTH * DEPTH)
        room = cgutils.alloca_once(builder, real, numbers) if ty else None

        def fill(vectors, j):
            count, of_panel = builder.sub(cols, j), builder.gep(out, [j])
            panel, no = _panel(builder, name, real, vectors), ir.Constant(ir.IntType(1), False)
            if not ty:
                there = x.begin, x.down, x.right, builder.gep(y, [j]), cols
                builder.call(panel, [*there, of_panel, cols, rows, inner, count, no])
                return
            collect, across = _collect(builder, name, real, vectors), ir.Constant(_word, vectors * WIDTH)
            with _every(builder, _zero, DEPTH, inner) as p:
                left, most = builder.sub(inner, p), ir.Constant(_word, DEPTH)
                depth = builder.select(builder.icmp_signed("<", left, most), left, most)
                begin = builder.gep(y, [builder.add(builder.mul(j, inner), p)])
                builder.call(collect, [begin, inner, depth, count, room])
                there = x.at(builder, _zero, p), x.down, x.right, room, across
                begun = builder.icmp_signed(">", p, _zero)
                builder.call(panel, [*there, of_panel, cols, rows, depth, count, begun])

        _emit_while(builder, "panel", at, WIDE * WIDTH, cols, lambda j: fill(WIDE, j))
        with _every(builder, builder.load(at), WIDTH, cols) as j:
            fill(1, j)

    shape = ir.FunctionType(ir.VoidType(), [pointer] * 3 + [_word] * 3)
    return shared(builder, f"ufm_{name}_by_panels_{'nt'[tx]}{'nt'[ty]}", shape, emit)


def _at_most(builder, number, limit):
    return builder.icmp_signed("<=", number, ir.Constant(_word, limit))


def _ways_of_loop(builder, name, tx, ty, rows, inner, cols):
    """Functions that are faster than BLAS, which may have several threads, each with the condition."""
    size = builder.mul(builder.mul(rows, inner), cols)
    few = _at_most(builder, size, FEW[name][tx, ty])
    if not (LONG and ty):
        return [(_by_rows, few)]
    few = builder.and_(few, _at_most(builder, inner, SHORT - 1))
    alone = _at_most(builder, size, THREADS_ABOVE)
    ways = _ways_of_thread(builder, name, tx, ty, rows, inner, cols)
    return [(_by_rows, few), *((way, builder.and_(when, alone)) for way, when in ways)]


def _ways_of_thread(builder, name, tx, ty, rows, inner, cols):
    """The same where BLAS has one thread and the matrices many columns."""
    entries = builder.mul(rows, cols if ty else inner)
    size = builder.mul(entries, inner if ty else cols)
    if not LONG:
        return [(_by_rows, _at_most(builder, size, FEW[name][tx, ty]))]
    if name != "dgemm":
        return []
    if ty:
        enough = builder.icmp_signed(">=", entries, ir.Constant(_word, ENTRIES))
        for_sums = builder.icmp_signed(">=", entries, builder.mul(inner, ir.Constant(_word, PER_NUMBER)))
        tall = builder.icmp_signed(">=", rows, ir.Constant(_word, ROWS))
        return [(_by_panels, builder.and_(builder.or_(enough, for_sums), tall))]
    many = builder.not_(_at_most(builder, size, MANY))
    return [(_by_panels, builder.and_(many, _at_most(builder, entries, LARGEST_FACTOR)))]


def _choosing(ways):
    """An intrinsic that takes the first of the ways whose condition holds, else BLAS."""

    def chosen(typingctx, x, ox, tx, y, oy, ty, out, oo, rows, inner, cols):
        signature, name = product_signature(x, y, out)

        def codegen(context, builder, signature, arguments):
            x, tx, y, ty, out, *sizes = pointers(context, builder, signature, arguments)
            real, done = x.type.pointee, builder.append_basic_block("product.done")
            for of_x, of_y in FEW[name]:
                stored = builder.and_(tx if of_x else builder.not_(tx), ty if of_y else builder.not_(ty))
                for way, when in ways(builder, name, of_x, of_y, *sizes):
                    here, otherwise = (
                        builder.append_basic_block(f"product.{part}") for part in ("here", "else")
                    )
                    builder.cbranch(builder.and_(stored, when), here, otherwise)
                    builder.position_at_end(here)
                    builder.call(way(builder, name, real, of_x, of_y), [x, y, out, *sizes])
                    builder.branch(done)
                    builder.position_at_end(otherwise)
            builder.call(gemm(builder, name, real), [x, tx, y, ty, out, *sizes])
            builder.branch(done)
            builder.position_at_end(done)
            return context.get_dummy_value()

        return signature, codegen

    return intrinsic(chosen)


# product(x, ox, tx, y, oy, ty, out, oo, rows, inner, cols): as `ufm.kernels.product.product`, by the fastest way;
# product_of_thread: the same, where BLAS has one thread and the matrices are those of a part of a large run
product, product_of_thread = (
    blas_product if config.DISABLE_JIT else _choosing(ways) for ways in (_ways_of_loop, _ways_of_thread)
)
