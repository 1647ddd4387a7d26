"""The product of one run with few entries: the numbers of BLAS, nothing beside the result."""

import numba
import numpy as np
import pytest

from ufm.kernels import small_product
from ufm.kernels.small_product import LARGEST, TALL, product
from ufm.kernels.vectors import WIDTH

ROUND_OFF = {"float64": 2.0**-53, "float32": 2.0**-24}
SPARE = 11


@numba.njit
def compiled(x, ox, tx, y, oy, ty, out, oo, rows, inner, cols):
    product(x, ox, tx, y, oy, ty, out, oo, rows, inner, cols)


def multiply(left, right, tx, ty, dtype="float64"):
    """The product of two matrices that lie in the middle of vectors of nan; what is around the result must stay."""
    (rows, inner), cols = left.shape, right.shape[1]
    x, y = (np.full(m.size + 2 * SPARE, np.nan, dtype) for m in (left, right))
    x[SPARE:-SPARE] = (left.T if tx else left).ravel()
    y[SPARE:-SPARE] = (right.T if ty else right).ravel()
    out = np.full(rows * cols + 2 * SPARE, 7.0, dtype)
    compiled(x, SPARE, tx, y, SPARE, ty, out, SPARE, rows, inner, cols)
    assert np.all(out[:SPARE] == 7.0)
    assert np.all(out[-SPARE:] == 7.0)
    return out[SPARE:-SPARE].reshape(rows, cols)


def assert_within_round_off(found, left, right, dtype="float64"):
    """Error of a sum of `inner` products in any order: gamma_inner sum |x y| (Higham, section 3.1)."""
    x, y = left.astype(np.longdouble), right.astype(np.longdouble)
    n = (left.shape[1] + 1) * ROUND_OFF[dtype]
    assert np.all(np.abs(found - x @ y) <= n / (1 - n) * (np.abs(x) @ np.abs(y)))


@pytest.mark.parametrize("inner", [1, 2, 8])
@pytest.mark.parametrize(("tx", "ty"), LARGEST)
def test_every_tile_within_round_off(rng, tx, ty, inner):
    for rows in range(1, 2 * TALL + 2):
        for cols in range(1, 2 * WIDTH + 2):
            left, right = rng.standard_normal((rows, inner)), rng.standard_normal((inner, cols))
            assert rows * inner * cols <= LARGEST[tx, ty]
            assert_within_round_off(multiply(left, right, tx, ty), left, right)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("tx", "ty"), [(0, 0), (0, 1), (1, 0), (1, 1)])
@pytest.mark.parametrize("shape", [(4, 4, 4), (10, 7, 13), (40, 30, 20)])
def test_all_forms_small_and_large(rng, dtype, tx, ty, shape):
    rows, inner, cols = shape
    small = rows * inner * cols <= LARGEST.get((bool(tx), bool(ty)), 0)
    assert small == (shape != (40, 30, 20) and (tx, ty) != (1, 1))
    left = rng.standard_normal((rows, inner)).astype(dtype)
    right = rng.standard_normal((inner, cols)).astype(dtype)
    assert_within_round_off(multiply(left, right, tx, ty, dtype), left, right, dtype)


def test_error_bound_refuses_a_transposed_factor(rng):
    left, right = rng.standard_normal((5, 5)), rng.standard_normal((5, 5))
    with pytest.raises(AssertionError):
        assert_within_round_off(multiply(left, right, 0, 1), left, right.T)


@pytest.mark.parametrize(("tx", "ty"), LARGEST)
def test_nan_stays_in_its_row_and_column(rng, tx, ty):
    left, right = rng.standard_normal((11, 6)), rng.standard_normal((6, 9))
    clean = multiply(left, right, tx, ty)
    left[3, 2], right[1, 8] = np.nan, np.inf
    found = multiply(left, right, tx, ty)
    touched = np.zeros((11, 9), bool)
    touched[3], touched[:, 8] = True, True
    assert np.array_equal(~np.isfinite(found), touched)
    assert np.array_equal(found[~touched], clean[~touched])


def test_mixed_precisions_are_refused():
    few = np.zeros(16)
    with pytest.raises(numba.TypingError, match="one precision"):
        compiled(few, 0, 0, few.astype("float32"), 0, 1, few, 0, 4, 4, 4)


def test_without_compiler_it_is_the_plain_product(python):
    code = "from ufm.kernels import product, small_product; print(small_product.product is product.product)"
    assert python(code, env={"NUMBA_DISABLE_JIT": "1"}).strip() == "True"
    assert small_product.product is not small_product.blas_product
