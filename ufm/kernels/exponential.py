"""The exponential function without branches, of a number or of a vector of numbers, relative error below 4 eps."""

from __future__ import annotations

import numpy as np
from numba import config

from ufm.kernels.contract import inline
from ufm.kernels.vectors import SHIFTED, below, multiply_add, power_of_two, where

LOWEST = -708.0  # exp below this is not a normal float64; results there are set to 0
_LOG2E = 1.4426950408889634
_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10

# exp(r) = 1 + r + r^2 q(r): coefficients of the polynomial q with the smallest relative error of exp on
# |r| <= log(2)/2, which is 2e-17; those of degree 0 and 1 are not 1/2 and 1/6 by one unit in the last place
_Q = (
    0.5000000000000001, 0.16666666666666669, 0.041666666666624164, 0.008333333333330065, 0.0013888888917196881,
    0.0001984126986304067, 2.4801521322116825e-05, 2.7557268488116333e-06, 2.762007599981065e-07,
    2.5100375924709717e-08,
)  # fmt: skip


def _exp_interpreted(x):
    return np.where(x < LOWEST, 0.0, np.exp(np.maximum(x, LOWEST)))


def _exp_polynomial(x):
    """exp(x) for x up to 709; 0 below `LOWEST`, nan stays nan."""
    vanishes = below(x, LOWEST)  # what the rest makes of such x is not used
    shifted = multiply_add(x, _LOG2E, SHIFTED)
    n = shifted - SHIFTED
    r = multiply_add(n, -_LN2_LOW, multiply_add(n, -_LN2_HIGH, x))
    s = r * r
    q = multiply_add(_Q[9], r, _Q[8])  # by pairs: fewer steps that wait for one another
    q = multiply_add(q, s, multiply_add(_Q[7], r, _Q[6]))
    q = multiply_add(q, s, multiply_add(_Q[5], r, _Q[4]))
    q = multiply_add(q, s, multiply_add(_Q[3], r, _Q[2]))
    q = multiply_add(q, s, multiply_add(_Q[1], r, _Q[0]))
    power = power_of_two(shifted)
    return where(vanishes, 0.0, multiply_add(multiply_add(q, s, r), power, power))


exp = _exp_interpreted if config.DISABLE_JIT else inline(_exp_polynomial)
