"""Products of many runs at once: against exact arithmetic, and no run touches another."""

from fractions import Fraction

import numba
import numpy as np
import pytest

from ufm.kernels import lanes
from ufm.kernels.lanes import ALIGNMENT, LANES, aligned

EPS = {"float64": 2.0**-53, "float32": 2.0**-24}  # unit round-off
FORMS = [(0, 0), (0, 1), (1, 0), (1, 1)]


@numba.njit
def compiled(x, ox, tx, y, oy, ty, out, oo, rows, inner, cols):
    lanes.product(x, ox, tx, y, oy, ty, out, oo, rows, inner, cols)


def stored(matrices, transposed, before=0, after=0, dtype="float64", fill=np.nan):
    """Matrices (rows, cols, LANES) as a flat aligned vector with `before` and `after` strange entries around."""
    entries = matrices.transpose(1, 0, 2) if transposed else matrices
    vector = aligned(before * LANES + entries.size + after * LANES, dtype)
    vector[:] = fill
    vector[before * LANES : before * LANES + entries.size] = entries.ravel()
    return vector


def multiply(left, right, tx=0, ty=0, function=compiled, dtype="float64"):
    """The product (rows, cols, LANES) and whether the numbers around it stayed."""
    (rows, inner, _), cols = left.shape, right.shape[1]
    x = stored(left, tx, 3, 2, dtype)
    y = stored(right, ty, 1, 4, dtype)
    out = stored(np.full((rows, cols, LANES), 7.0), 0, 2, 3, dtype, fill=-5.0)
    function(x, 3 * LANES, tx, y, LANES, ty, out, 2 * LANES, rows, inner, cols)
    inside = slice(2 * LANES, (2 + rows * cols) * LANES)
    around = np.delete(out, np.arange(inside.start, inside.stop))
    assert np.all(around == -5.0)
    return out[inside].reshape(rows, cols, LANES).copy()


def pair(rng, rows, inner, cols, dtype="float64"):
    return (
        rng.standard_normal((rows, inner, LANES)).astype(dtype),
        rng.standard_normal((inner, cols, LANES)).astype(dtype),
    )


def assert_within_round_off(found, left, right, dtype="float64"):
    """Error of a sum of `inner` products: gamma_inner sum |x y|, fused or not (Higham, section 3.1)."""
    x, y = left.astype(np.longdouble), right.astype(np.longdouble)
    exact = np.einsum("ipl,pjl->ijl", x, y)
    n = left.shape[1] + 1
    gamma = n * EPS[dtype] / (1 - n * EPS[dtype])
    bound = gamma * np.einsum("ipl,pjl->ijl", np.abs(x), np.abs(y))
    assert np.all(np.abs(found - exact) <= bound)


# -------------------------------------------------------------------------------------------- the right numbers


@pytest.mark.parametrize(("tx", "ty"), FORMS)
def test_every_small_size_within_round_off(rng, tx, ty):
    """Every combination of tiles: whole, one short of whole, and thin."""
    for rows in range(1, 2 * lanes.TALL + 3):
        for cols in range(1, 2 * lanes.WIDE + 3):
            for inner in (1, 2, 5):
                left, right = pair(rng, rows, inner, cols)
                assert_within_round_off(multiply(left, right, tx, ty), left, right)


@pytest.mark.parametrize("function", [compiled, lanes._interpreted])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_compiled_and_interpreted_within_round_off(rng, function, dtype):
    for rows, inner, cols in [(1, 1, 1), (4, 4, 4), (10, 7, 13), (33, 40, 31)]:
        left, right = pair(rng, rows, inner, cols, dtype)
        for tx, ty in FORMS:
            found = multiply(left, right, tx, ty, function, dtype)
            assert_within_round_off(found, left, right, dtype)


def test_error_bound_refuses_a_dropped_term(rng):
    left, right = pair(rng, 3, 6, 2)
    found = multiply(left, right) - left[:, 5, None] * right[5] * 1e-12
    with pytest.raises(AssertionError):
        assert_within_round_off(found, left, right)


def test_sums_run_in_order_with_one_rounding_each_or_two(rng):
    """Bit for bit: fused products where the processor has them, else rounded ones; nothing in between."""
    left, right = pair(rng, 5, 6, 4)
    found = multiply(left, right)
    fused, plain = np.zeros_like(found), np.zeros_like(found)
    for i, j, lane in np.ndindex(found.shape):
        for p in range(6):
            x, y = float(left[i, p, lane]), float(right[p, j, lane])
            fused[i, j, lane] = float(Fraction(x) * Fraction(y) + Fraction(float(fused[i, j, lane])))
            plain[i, j, lane] = x * y + plain[i, j, lane]
    assert np.any(fused != plain)
    assert np.array_equal(found, fused) or np.array_equal(found, plain)


@pytest.mark.parametrize(("tx", "ty"), FORMS)
def test_form_of_storage_does_not_change_bits(rng, tx, ty):
    left, right = pair(rng, 9, 10, 7)
    assert np.array_equal(multiply(left, right, tx, ty), multiply(left, right))


# ------------------------------------------------------------------------------------- runs know nothing of others


def test_lane_has_the_same_bits_wherever_it_sits_and_whatever_the_others_hold(rng):
    left, right = pair(rng, 10, 11, 5)
    alone = [np.zeros_like(left), np.zeros_like(right)]
    first = multiply(left, right)[..., 0]
    for lane in range(LANES):
        for whole, of_run in zip(alone, (left, right), strict=True):
            whole[:] = rng.standard_normal(whole.shape) * 1e200
            whole[..., lane] = of_run[..., 0]
        assert np.array_equal(multiply(*alone)[..., lane], first)


@pytest.mark.parametrize("strange", [np.nan, np.inf, -np.inf, 1e308, 5e-324])
def test_strange_numbers_stay_in_their_lane(rng, strange):
    left, right = pair(rng, 6, 5, 8)
    clean = multiply(left, right)
    left[2, 3, 4] = strange
    right[1, 6, 11] = strange
    with np.errstate(all="ignore"):
        found = multiply(left, right)
    others = [lane for lane in range(LANES) if lane not in (4, 11)]
    assert np.array_equal(found[..., others], clean[..., others])
    untouched = np.ones((6, 8), bool)
    untouched[2] = False  # row 2 of the left matrix in lane 4
    assert np.array_equal(found[untouched, 4], clean[untouched, 4])
    assert not np.array_equal(found[2, :, 4], clean[2, :, 4])


def test_zero_times_infinity_is_not_a_number(rng):
    left, right = np.zeros((4, 4, LANES)), np.ones((4, 4, LANES))
    right[0, 0, 3] = np.inf
    found = multiply(left, right)
    assert np.isnan(found[:, 0, 3]).all()
    assert np.isnan(found).sum() == 4


# --------------------------------------------------------------------------------------- other processors, no compiler


SAME_BITS = """
import hashlib, numba, numpy as np
from ufm.kernels import lanes
@numba.njit
def call(x, y, out, rows, inner, cols, tx, ty):
    lanes.product(x, 0, tx, y, 0, ty, out, 0, rows, inner, cols)
rng, digest = np.random.default_rng(0), hashlib.sha256()
for rows, inner, cols, tx, ty in [(4, 4, 4, 0, 0), (10, 7, 5, 0, 1), (7, 10, 10, 1, 0), (2, 3, 1, 1, 1)]:
    x, y = lanes.aligned(rows * inner * 16), lanes.aligned(inner * cols * 16)
    x[:], y[:] = rng.standard_normal(x.size), rng.standard_normal(y.size)
    out = lanes.aligned(rows * cols * 16)
    call(x, y, out, rows, inner, cols, tx, ty)
    digest.update(out.tobytes())
print(lanes.VECTOR, digest.hexdigest())
"""


def test_short_vectors_give_the_bits_of_long_ones(python):
    """AVX2 has other tiles; both fuse, so both round alike."""
    import platform

    from llvmlite import binding

    if platform.machine() != "x86_64" or not binding.get_host_cpu_features().get("fma", False):
        pytest.skip("not an x86-64 processor with fused products")
    here = python(SAME_BITS).split()
    features = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx,+avx2,+fma,+bmi,+bmi2"}
    short = python(SAME_BITS, env=features).split()
    assert short[0] == "8"
    assert short[1] == here[1]


def test_without_any_special_instruction_and_without_compiler(python):
    """SSE2 alone rounds every product, as the interpreted twin does."""
    import platform

    if platform.machine() != "x86_64":
        pytest.skip("not an x86-64 processor")
    plain = python(SAME_BITS, env={"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": "+sse2"}).split()
    interpreted = python(SAME_BITS, env={"NUMBA_DISABLE_JIT": "1"}).split()
    assert plain[1] == interpreted[1]


# --------------------------------------------------------------------------------------------------------- vectors


@pytest.mark.parametrize("shape", [1, 17, (3, 5), (2, 3, LANES)])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_aligned_zeros(shape, dtype):
    for _ in range(20):
        vector = aligned(shape, dtype)
        assert vector.shape == np.zeros(shape).shape
        assert vector.dtype == dtype
        assert vector.ctypes.data % ALIGNMENT == 0
        assert vector.flags.c_contiguous
        assert vector.flags.writeable
        assert not vector.any()


def test_mixed_precisions_are_refused():
    with pytest.raises(numba.TypingError, match="one precision"):
        compiled(aligned(64), 0, 0, aligned(64, "float32"), 0, 0, aligned(64), 0, 2, 2, 2)


def test_matrices_are_refused():
    with pytest.raises(numba.TypingError, match="flat contiguous"):
        compiled(aligned((2, 32)), 0, 0, aligned(64), 0, 0, aligned(64), 0, 2, 2, 2)
