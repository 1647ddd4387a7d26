"""The product of one run by tiles: the numbers of BLAS or those of plain sums, nothing beside the result."""

import ctypes
import mmap
import sys

import numba
import numpy as np
import pytest
from numba.extending import intrinsic
from threadpoolctl import threadpool_limits

from ufm.kernels import product as by_blas
from ufm.kernels import tiled_product
from ufm.kernels.product import pointers, product_signature
from ufm.kernels.tiled_product import (
    DEPTH,
    ENTRIES,
    FEW,
    HEIGHTS,
    LARGEST_FACTOR,
    MANY,
    PER_NUMBER,
    ROWS,
    SHORT,
    WIDE,
)
from ufm.kernels.vectors import LONG, WIDTH, multiply_add
from ufm.parts import WHOLE

ROUND_OFF = {"float64": 2.0**-53, "float32": 2.0**-24}
FORMS = [(0, 0), (0, 1), (1, 0)]
SPARE = 11
TALL, PANEL = max(max(heights) for heights in HEIGHTS.values()), WIDE * WIDTH


@numba.njit
def compiled(x, ox, tx, y, oy, ty, out, oo, rows, inner, cols):
    tiled_product.product(x, ox, tx, y, oy, ty, out, oo, rows, inner, cols)


@numba.njit
def of_thread(x, ox, tx, y, oy, ty, out, oo, rows, inner, cols):
    tiled_product.product_of_thread(x, ox, tx, y, oy, ty, out, oo, rows, inner, cols)


def of_way(way, tx, ty):
    """One way, whatever the sizes are."""

    @intrinsic
    def emitted(typingctx, x, ox, tx_, y, oy, ty_, out, oo, rows, inner, cols):
        signature, name = product_signature(x, y, out)

        def codegen(context, builder, signature, arguments):
            x, _, y, _, out, *sizes = pointers(context, builder, signature, arguments)
            builder.call(way(builder, name, x.type.pointee, bool(tx), bool(ty)), [x, y, out, *sizes])
            return context.get_dummy_value()

        return signature, codegen

    @numba.njit
    def multiplied(x, ox, tx, y, oy, ty, out, oo, rows, inner, cols):
        emitted(x, ox, tx, y, oy, ty, out, oo, rows, inner, cols)

    return multiplied


WAYS = {
    (name, *form): of_way(way, *form)
    for name, way in (("rows", tiled_product._by_rows), ("panels", tiled_product._by_panels))
    for form in FORMS
}


def multiply(left, right, tx, ty, dtype="float64", function=compiled):
    """The product of two matrices that lie in the middle of vectors of nan; what is around the result must stay."""
    (rows, inner), cols = left.shape, right.shape[1]
    x, y = (np.full(m.size + 2 * SPARE, np.nan, dtype) for m in (left, right))
    x[SPARE:-SPARE] = (left.T if tx else left).ravel()
    y[SPARE:-SPARE] = (right.T if ty else right).ravel()
    out = np.full(rows * cols + 2 * SPARE, 7.0, dtype)
    function(x, SPARE, tx, y, SPARE, ty, out, SPARE, rows, inner, cols)
    assert np.all(out[:SPARE] == 7.0)
    assert np.all(out[-SPARE:] == 7.0)
    return out[SPARE:-SPARE].reshape(rows, cols)


def factors(rng, rows, inner, cols, dtype="float64"):
    """Two matrices of random numbers."""
    return tuple(rng.standard_normal(shape).astype(dtype) for shape in ((rows, inner), (inner, cols)))


@numba.njit
def in_order(left, right):
    """Each sum number by number, rounded as tiles round it."""
    out = np.zeros((left.shape[0], right.shape[1]))
    for i in range(left.shape[0]):
        for j in range(right.shape[1]):
            total = 0.0
            for p in range(left.shape[1]):
                total = multiply_add(left[i, p], right[p, j], total)
            out[i, j] = total
    return out


def assert_within_round_off(found, left, right, dtype="float64"):
    """Error of a sum of `inner` products in any order: gamma_inner sum |x y| (Higham, section 3.1)."""
    x, y = left.astype(np.longdouble), right.astype(np.longdouble)
    n = (left.shape[1] + 1) * ROUND_OFF[dtype]
    assert np.all(np.abs(found - x @ y) <= n / (1 - n) * (np.abs(x) @ np.abs(y)))


@pytest.mark.parametrize("way", WAYS)
def test_every_tile_sums_in_order(rng, way):
    for rows in range(1, 2 * TALL + 2):
        for cols in (*range(1, 2 * WIDTH + 2), PANEL - 1, PANEL, PANEL + 1, 2 * PANEL + WIDTH + 3):
            for inner in (1, 2, WIDTH, WIDTH + 1):
                left, right = factors(rng, rows, inner, cols)
                found = multiply(left, right, *way[1:], function=WAYS[way])
                assert np.array_equal(found, in_order(left, right))


@pytest.mark.parametrize("inner", [DEPTH - 1, DEPTH, DEPTH + 1, 2 * DEPTH + WIDTH + 3])
@pytest.mark.parametrize("way", WAYS)
def test_long_sums_are_taken_in_order(rng, way, inner):
    for rows, cols in ((1, 1), (3, PANEL), (TALL + 7, PANEL + WIDTH + 5)):
        left, right = factors(rng, rows, inner, cols)
        found = multiply(left, right, *way[1:], function=WAYS[way])
        assert np.array_equal(found, in_order(left, right))


@pytest.mark.parametrize("way", WAYS)
def test_every_way_in_single_precision(rng, way):
    for rows, inner, cols in ((1, 1, 1), (TALL + 7, DEPTH + 3, PANEL + WIDTH + 5)):
        left, right = factors(rng, rows, inner, cols, "float32")
        found = multiply(left, right, *way[1:], "float32", WAYS[way])
        assert_within_round_off(found, left, right, "float32")


@pytest.mark.parametrize("way", WAYS)
def test_nan_stays_in_its_row_and_column(rng, way):
    left, right = factors(rng, 11, DEPTH + 6, 29)
    clean = multiply(left, right, *way[1:], function=WAYS[way])
    left[3, 2], right[DEPTH + 1, 28] = np.nan, np.inf
    found = multiply(left, right, *way[1:], function=WAYS[way])
    touched = np.zeros((11, 29), bool)
    touched[3], touched[:, 28] = True, True
    assert np.array_equal(~np.isfinite(found), touched)
    assert np.array_equal(found[~touched], clean[~touched])


PAGE = mmap.PAGESIZE


def before_forbidden_memory(count, dtype):
    """Room for so many numbers; whoever reads or writes beyond them crashes."""
    libc = ctypes.CDLL(None, use_errno=True)
    size = count * np.dtype(dtype).itemsize
    pages = -(-size // PAGE)
    memory = mmap.mmap(-1, (pages + 1) * PAGE)
    begin = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    assert libc.mprotect(ctypes.c_void_p(begin + pages * PAGE), ctypes.c_size_t(PAGE), 0) == 0
    return np.frombuffer(memory, np.uint8)[pages * PAGE - size : pages * PAGE].view(dtype)


@pytest.mark.skipif(sys.platform == "win32", reason="no mprotect")
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("way", WAYS)
def test_nothing_beyond_the_factors_is_read(rng, way, dtype):
    for shape in ((1, 1, 1), (9, DEPTH + 3, PANEL + WIDTH + 5), (3, 2 * WIDTH + 1, PANEL), (11, 5, 3)):
        (rows, inner, cols), (left, right) = shape, factors(rng, *shape, dtype)
        x, y, out = (before_forbidden_memory(size, dtype) for size in (left.size, right.size, rows * cols))
        x[:] = (left.T if way[1] else left).ravel()
        y[:] = (right.T if way[2] else right).ravel()
        WAYS[way](x, 0, way[1], y, 0, way[2], out, 0, rows, inner, cols)
        assert_within_round_off(out.reshape(rows, cols), left, right, dtype)


@numba.njit
def blas(x, ox, tx, y, oy, ty, out, oo, rows, inner, cols):
    by_blas.product(x, ox, tx, y, oy, ty, out, oo, rows, inner, cols)


# form and shape on both sides of where the fastest way of long registers changes: of loops, and of threads
TILES, BLAS = "tiles", "BLAS"
CHOICES = [
    ((0, 1), (4, SHORT, 44), BLAS, BLAS),
    ((0, 1), (ROWS, 200, ENTRIES // ROWS), TILES, TILES),
    ((0, 1), (ROWS, 200, ENTRIES // ROWS - 1), BLAS, BLAS),
    ((0, 1), (ROWS - 1, 200, ENTRIES // ROWS + 20), BLAS, BLAS),
    ((0, 1), (20, 40, PER_NUMBER * 2), TILES, TILES),
    ((0, 1), (20, 40, PER_NUMBER * 2 - 1), BLAS, BLAS),
    ((0, 0), (10, 300, 1), TILES, BLAS),
    ((0, 0), (10, 301, 1), BLAS, BLAS),
    ((0, 0), (20, 500, MANY // 10_000), BLAS, BLAS),
    ((0, 0), (20, 500, MANY // 10_000 + 1), BLAS, TILES),
    ((1, 0), (20, 500, MANY // 10_000), BLAS, BLAS),
    ((1, 0), (20, 500, MANY // 10_000 + 1), BLAS, TILES),
    ((0, 0), (256, LARGEST_FACTOR // 256, 30), BLAS, TILES),
    ((0, 0), (256, LARGEST_FACTOR // 256 + 1, 30), BLAS, BLAS),
]


@pytest.mark.skipif(not LONG, reason="the rule of long registers")
@pytest.mark.parametrize(("form", "shape", "of_loop", "of_a_thread"), CHOICES)
def test_the_way_is_chosen_by_size(rng, form, shape, of_loop, of_a_thread):
    """Told from the bits, where BLAS sums in another order."""
    left, right = factors(rng, *shape)
    with threadpool_limits(1, "blas"):
        bits = {TILES: in_order(left, right), BLAS: multiply(left, right, *form, function=blas)}
        if np.array_equal(bits[TILES], bits[BLAS]):
            pytest.skip("this BLAS sums in order too")
        for function, way in ((compiled, of_loop), (of_thread, of_a_thread)):
            assert np.array_equal(multiply(left, right, *form, function=function), bits[way])


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("tx", "ty"), [*FORMS, (1, 1)])
@pytest.mark.parametrize("function", [compiled, of_thread])
def test_all_forms_by_the_fastest_way(rng, function, dtype, tx, ty):
    for shape in ((4, 4, 4), (10, 7, 13), (40, 30, 20), *(shape for _, shape, *_ in CHOICES)):
        left, right = factors(rng, *shape, dtype)
        assert_within_round_off(multiply(left, right, tx, ty, dtype, function), left, right, dtype)


def test_limits_for_both_precisions_name_the_same_forms():
    assert set(FEW["dgemm"]) == set(FEW["sgemm"]) == {(bool(tx), bool(ty)) for tx, ty in FORMS}


def test_parts_end_where_vectors_do():
    assert WHOLE == WIDTH


def test_error_bound_refuses_a_transposed_factor(rng):
    left, right = factors(rng, 5, 5, 5)
    with pytest.raises(AssertionError):
        assert_within_round_off(multiply(left, right, 0, 1), left, right.T)


def test_mixed_precisions_are_refused():
    few = np.zeros(16)
    with pytest.raises(numba.TypingError, match="one precision"):
        compiled(few, 0, 0, few.astype("float32"), 0, 1, few, 0, 4, 4, 4)


def test_without_compiler_it_is_the_plain_product(python):
    code = "from ufm.kernels import product, tiled_product; print(tiled_product.product is product.product)"
    assert python(code, env={"NUMBA_DISABLE_JIT": "1"}).strip() == "True"
    assert tiled_product.product is not by_blas.product
