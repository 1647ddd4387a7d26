"""Explicit solutions: stationary states of an objective as named blocks, to evaluate, to perturb and to start from."""

from __future__ import annotations

from ufm.solutions.solution import Solution

__all__ = ["Solution"]
