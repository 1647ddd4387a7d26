"""scipy's BLAS without scipy.linalg: the right numbers, and an ordinary scipy before and after."""

import ctypes
import itertools

import numba
import numpy as np
import pytest

from ufm.kernels import blas
from ufm.kernels.product import product

RUN = """
import sys
import numpy as np
import ufm
from ufm.kernels import blas

def run():
    traj = ufm.simulate(ufm.UFM(4, 5, 2), ufm.GD(0.1), ufm.Coupled(0.01), steps=2)
    assert np.all(np.isfinite(traj.states))

"""
AFTER = {
    "the package": "import scipy.linalg\nfound = scipy.linalg.cython_blas",
    "from the package": "from scipy.linalg import cython_blas as found",
    "the module": "import scipy.linalg.cython_blas\nfound = scipy.linalg.cython_blas",
    "another package": "import scipy.optimize, scipy.linalg\nfound = scipy.linalg.cython_blas",
}
SAME = """
assert found is blas.module() is sys.modules["scipy.linalg.cython_blas"] is scipy.linalg.cython_blas
assert found.__spec__.name == "scipy.linalg.cython_blas" and "dgemm" in found.__pyx_capi__
matrix = np.array([[2.0, 1.0], [1.0, 3.0]])
assert np.allclose(scipy.linalg.solve(matrix, matrix @ [5.0, 7.0]), [5.0, 7.0])
assert scipy.linalg.get_blas_funcs("gemm", (matrix,))(1.0, matrix, matrix).tolist() == (matrix @ matrix).tolist()
"""


def test_a_run_imports_no_scipy_linalg(python):
    found = python(RUN + "run()\nprint([name for name in sys.modules if name.startswith('scipy.linalg')])")
    assert found.split() == ["[]"]


@pytest.mark.parametrize("order", AFTER)
def test_scipy_imported_later_is_whole(python, order):
    """The extension is one module, an attribute of its package, whoever loads it first."""
    python(RUN + AFTER[order] + "\nimport scipy.linalg" + SAME + "run()")


def test_scipy_imported_after_a_run_is_whole(python):
    """For numba's own products, too."""
    own = "import numba\nassert numba.njit(lambda x: x @ x)(np.eye(2)).tolist() == np.eye(2).tolist()"
    python(RUN + "run()\n" + AFTER["the module"] + SAME + own)


@pytest.mark.parametrize("order", ["the module", "another package"])
def test_scipy_imported_before_is_whole(python, order):
    python(AFTER[order] + "\nimport scipy.linalg" + RUN + "run()\n" + SAME)


def test_scipy_imported_by_another_thread_meanwhile_is_whole(python):
    code = "with blas.importable():\n    import scipy.linalg\nfound = sys.modules[blas.NAME]"
    python(RUN + code + SAME + "run()")


def test_where_the_extension_cannot_be_loaded_alone_it_is_imported(python):
    """As where a loader other than that of files brings scipy."""
    code = """
import sys
from importlib.machinery import PathFinder

find = PathFinder.find_spec

def found(name, path=None, target=None):
    alone = name == "scipy.linalg.cython_blas" and "scipy.linalg" not in sys.modules
    tried.append(alone)
    return None if alone else find(name, path, target)


tried = []
PathFinder.find_spec = found
"""
    python(
        code
        + RUN
        + "import scipy.linalg\nfound = scipy.linalg.cython_blas"
        + SAME
        + "assert any(tried)\nrun()"
    )


@numba.njit
def call(x, ox, tx, y, oy, ty, out, oo, rows, inner, cols):
    product(x, ox, tx, y, oy, ty, out, oo, rows, inner, cols)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_products_of_blas(rng, dtype):
    """Every form, in the middle of vectors; entries outside the result stay."""
    rows, inner, cols = 3, 4, 5
    left = rng.standard_normal((rows, inner)).astype(dtype)
    right = rng.standard_normal((inner, cols)).astype(dtype)
    for tx, ty in itertools.product((0, 1), repeat=2):
        x = np.concatenate([[np.nan], (left.T if tx else left).ravel()]).astype(dtype)
        y = np.concatenate([[np.nan] * 2, (right.T if ty else right).ravel()]).astype(dtype)
        out = np.full(rows * cols + 4, -7, dtype)
        call(x, 1, tx, y, 2, ty, out, 3, rows, inner, cols)
        found = out[3:-1].reshape(rows, cols)
        exact = left.astype(np.float64) @ right
        assert np.all(np.abs(found - exact) <= inner * np.finfo(dtype).eps * (np.abs(left) @ np.abs(right)))
        assert [*out[:3], out[-1]] == [-7] * 4


def test_vectors_of_two_precisions_are_refused():
    x, y = np.ones(1), np.ones(1, np.float32)
    with pytest.raises(numba.TypingError, match="one precision"):
        call(x, 0, 0, y, 0, 0, x, 0, 1, 1, 1)


def capsule(signature):
    new = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(
        ("PyCapsule_New", ctypes.pythonapi)
    )
    return new(1, signature, None)


@pytest.mark.parametrize("integer", ["int", "int64_t"])
def test_a_blas_that_counts_in_other_integers_is_refused(monkeypatch, integer):
    shape = f"char *, char *, {integer} *, {integer} *, {integer} *, d *, d *, {integer} *, d *, {integer} *"
    name = f"void ({shape}, d *, d *, {integer} *)".encode()
    monkeypatch.setattr(blas, "module", lambda: type("", (), {"__pyx_capi__": {"dgemm": capsule(name)}}))
    if integer == "int":
        assert blas.address("dgemm") == 1
    else:
        with pytest.raises(ImportError, match="int64_t"):
            blas.address("dgemm")
