"""Explicit solutions: stationary states of an objective as named blocks, to evaluate, to perturb and to start from."""

from __future__ import annotations

from ufm.solutions.collapsed import dnc, linear_optimum, zero
from ufm.solutions.etf import fixed_simplex, merged, polygon, simplex
from ufm.solutions.graph import srg
from ufm.solutions.imbalance import imbalanced_optimum
from ufm.solutions.interpolating import seli
from ufm.solutions.known import known
from ufm.solutions.mse_bias import biased_optimum
from ufm.solutions.normalised import normalised_simplex
from ufm.solutions.pairs import low_rank
from ufm.solutions.regression import aligned_modes, regression_optimum
from ufm.solutions.solution import Solution

__all__ = [
    "Solution", "aligned_modes", "biased_optimum", "dnc", "fixed_simplex", "imbalanced_optimum", "known",
    "linear_optimum", "low_rank", "merged", "normalised_simplex", "polygon", "regression_optimum", "seli", "simplex",
    "srg", "zero",
]  # fmt: skip
