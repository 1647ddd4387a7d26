"""One formula for every number type: the examples of the docstrings in numpy, mpmath and SymPy."""

import doctest
import importlib
import inspect
from numbers import Number

import mpmath
import numpy as np
import pytest
import sympy

import ufm.theory
from ufm.errors import UfmError

# examples that show a special value, or arrays; and where the example's numbers are too small for a direct form
OTHER_ARGUMENTS = {
    ("regression", "weight_square"): (4.0, 0.5, 0.3),
    ("regression", "residual_square"): (4.0, 0.5, 0.3),
    ("regression", "mode_loss"): (4.0, 0.5, 0.3),
    ("row_sum", "growth"): (3, 0.5, 0.4, 0.3, 0.2),
    ("row_sum", "growth_closed_form"): (3, 0.5, 0.4, 0.3, 0.2),
    ("signgd_decoupled", "weight"): (3, 0.5, 0.25),
    ("signgd_decoupled", "least_slope"): (0.5, 4),
    ("signgd_decoupled", "convergence_margin"): (0.1, 0.5, 4),
    ("symmetric_path", "nc0"): (3.0, -0.25, 4),
}
# matrices and arrays of expressions, which the proofs give them, or what one of the modules named does not have
OF_ARRAYS = {
    ("cross_entropy_optimum", "dual_value"), ("deep_collapse", "exactly"), ("deep_cross_entropy", "pull"),
    ("deep_cross_entropy", "critical_decay"), ("linear_mse", "centred_gram"), ("regression", "gram_loss"),
    ("seli", "centred_sizes"), ("seli", "laplacian"), ("spectral_depth", "class_logits"),
    ("spectral_depth", "softmax"), ("spectral_depth", "missing_spectrum"), ("spectral_depth", "residual"),
    ("spectral_depth", "residual_slope"), ("deep_collapse", "shortfall"), ("mse_bias", "soft_threshold"),
}  # fmt: skip
GENERIC = [
    (room, name)
    for room in ufm.theory.__all__
    for name, member in vars(importlib.import_module(f"ufm.theory.{room}")).items()
    if inspect.isfunction(member)
    and member.__module__ == f"ufm.theory.{room}"
    and "xp" in inspect.signature(member).parameters
    and not name.startswith("_")
    and (room, name) not in OF_ARRAYS
]


def calls_in_the_examples(room, name):
    """Positional and named arguments of the calls in a function's own examples."""
    module = importlib.import_module(f"ufm.theory.{room}")
    function, found = getattr(module, name), []

    def noted(*args, **kwargs):
        found.append((args, kwargs))
        return function(*args, **kwargs)

    names = {**vars(module), name: noted}
    for example in doctest.DocTestParser().get_examples(function.__doc__):
        exec(compile(example.source, name, "single"), names)
    return function, found


def modules_of(function):
    """Those that the docstring names for `xp`."""
    said = function.__doc__.partition("xp : module")[2].partition("\n\n")[0]
    named = [module for module in (mpmath, sympy) if f"``{module.__name__}``" in said]
    return [mpmath, sympy] if "any other" in said else named


def numbers_of(value):
    """All numbers in a value that may hold tuples and matrices."""
    if isinstance(value, tuple | list | np.ndarray | sympy.MatrixBase | mpmath.matrix):
        return [number for part in value for number in numbers_of(part)]
    return [complex(value)]


def plain(argument):
    return isinstance(argument, Number | str | None) or (
        isinstance(argument, tuple | list) and all(plain(part) for part in argument)
    )


@pytest.mark.parametrize(("room", "name"), GENERIC)
def test_every_number_type_gives_the_same_numbers(room, name, capsys):
    function, found = calls_in_the_examples(room, name)
    if (room, name) in OTHER_ARGUMENTS:
        found = [(OTHER_ARGUMENTS[room, name], {})]
    compared = 0
    for args, kwargs in found:
        if not all(plain(argument) for argument in (*args, *kwargs.values())):
            continue
        expected = numbers_of(function(*args, **{**kwargs, "xp": np}))
        for xp in modules_of(function):
            try:
                given = function(*args, **{**kwargs, "xp": xp})
            except UfmError:
                continue
            np.testing.assert_allclose(
                numbers_of(given), expected, rtol=1e-9, atol=1e-14, err_msg=xp.__name__
            )
            compared += 1
    assert compared, "no example that another number type can evaluate"
