r"""Deep cross-entropy: neural collapse against solutions of half its rank, in closed form.

Objective, n samples in each of K classes, N = K n, s the identity or ReLU:

    F = (1/N) sum CE(Z) + sum_l lW_l/2 ||W_l||_F^2 + lH/2 ||H_1||_F^2,  H_2 = W_1 H_1, H_{l+1} = W_l s(H_l),
    Z = W_L s(H_L),    Lam = (n lH lW_1 ... lW_L)^(1/(L+1))

A pattern of class means Z = c P, with the factors that realise it at least norm and shared evenly among the L + 1
blocks (the inequality of the arithmetic and the geometric mean), has

    F(c) = fit(c) + (L+1)/2 Lam C c^(2/(L+1)),    stationary where  Lam = -fit'(c) c^((L-1)/(L+1))/C

and the larger root is the minimum. Patterns, S = I - J/K and X = m blocks ((1, -1), (-1, 1)), m = floor(K/2):

    "dnc"       P = S; linear C = K - 1, ReLU C^(L+1) = K^L (K-1) (features I, layers I, W_L = S)
    "low_rank"  P = X, and a 1 for the class left over if K is odd; linear C = m 2^(2/(L+1)) (+ 1 for odd K),
                ReLU, even K: C^(L+1) = 2 K^3 ((K+2)/2)^(L-2)  (features X + J, layers X + 2J/K, W_L = X)

In the linear model C c^(2/(L+1)) is the sum of the singular values of the class means of Z to the power 2/(L+1),
which no factorisation undercuts. At the same scale the low-rank pattern always fits better: its logits have gaps c,
and 2c to the partner. So wherever its C is no larger it beats DNC at every decay, every n and every scale.

Garrod and Keating (arXiv 2410.23169v2) are read in full, but their displayed equations were missing in the text and
are derived here; they have one common decay lam, so that Lam = lam n^(1/(L+1)).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ufm.checks import choice, whole
from ufm.claims import Claim, Source
from ufm.errors import invalid
from ufm.theory.deep_collapse import geometric_decay

PAPER = "Garrod, Keating, arXiv 2410.23169v2"
HERE = "this package"
STATES = ("dnc", "low_rank")
ACTIVATIONS = ("identity", "relu")


# ------------------------------------------------------------------ formulas, generic in their number type


def fit(scale: Any, K: Any, state: str, odd: bool = False, xp: Any = np) -> Any:
    """Cross-entropy of the pattern at a scale; any number type.

    log(1 + (K-1) e^-c) for "dnc"; log(1 + e^-2c + (K-2) e^-c) for the paired classes of "low_rank", of which an odd
    K leaves one over with log(1 + (K-1) e^-c).

    Parameters
    ----------
    scale : number or ndarray, shape (...)
        c >= 0.
    K : int or symbol
        Number of classes.
    state : {"dnc", "low_rank"}
    odd : bool
        Whether K is odd.
    xp : module
        ``numpy``, ``mpmath`` or ``sympy``.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> round(float(fit(0.0, 4, "dnc")), 6), round(float(fit(1.0, 4, "low_rank")), 6)
    (1.386294, 0.626523)
    """
    log1p = getattr(xp, "log1p", None) or (lambda x: xp.log(1 + x))
    single = log1p((K - 1) * xp.exp(-scale))
    if state == "dnc":
        return single
    paired = log1p(xp.exp(-2 * scale) + (K - 2) * xp.exp(-scale))
    return ((K - 1) * paired + single) / K if odd else paired


def pull(scale: Any, K: Any, state: str, odd: bool = False, xp: Any = np) -> Any:
    """-d fit/d scale > 0, parameters as in `fit`; any number type.

    Parameters
    ----------
    scale, K, state, odd, xp
        As in `fit`.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> float(pull(0.0, 4, "dnc"))
    0.75
    """
    one, two = xp.exp(-scale), xp.exp(-2 * scale)
    single = (K - 1) * one / (1 + (K - 1) * one)
    if state == "dnc":
        return single
    paired = (2 * two + (K - 2) * one) / (1 + two + (K - 2) * one)
    return ((K - 1) * paired + single) / K if odd else paired


def cost(K: Any, depth: Any, state: str, activation: str = "identity", odd: bool = False) -> Any:
    """C, the least product of the factors' norms at scale 1, per factor; any number type.

    Parameters
    ----------
    K : int or symbol
        Number of classes; even for the low-rank pattern under ReLU.
    depth : int or symbol
        Number L of layers, >= 2 under ReLU.
    state : {"dnc", "low_rank"}
    activation : {"identity", "relu"}
    odd : bool
        Whether K is odd.

    Returns
    -------
    number

    Examples
    --------
    >>> cost(4, 3, "dnc"), round(cost(4, 3, "low_rank"), 6)
    (3, 2.828427)
    """
    power = 1 / (depth + 1)
    if activation == "relu":
        (first, m), (second, k) = relu_factors(K, depth, state)
        return first ** (m * power) * second ** (k * power)
    if state == "dnc":
        return K - 1
    pairs = (K - 1) // 2 if odd and isinstance(K, int) else (K - 1) / 2 if odd else K / 2
    return pairs * 4**power + (1 if odd else 0)


def relu_factors(K: Any, depth: Any, state: str) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """Bases and exponents of C^(L+1) under ReLU, see `relu_constant`; the product overflows at some hundred layers.

    Parameters
    ----------
    K : int or symbol
        Even for the low-rank pattern.
    depth : int or symbol
        Number L of layers.
    state : {"dnc", "low_rank"}
        Pattern.

    Returns
    -------
    pair of pairs (base, exponent)

    Examples
    --------
    >>> relu_factors(6, 4, "dnc")
    ((6, 4), (5, 1))
    """
    return ((K, depth), (K - 1, 1)) if state == "dnc" else ((2 * K**3, 1), ((K + 2) / 2, depth - 2))


def relu_constant(K: Any, depth: Any, state: str) -> Any:
    """C^(L+1) under ReLU: K^L (K-1) for "dnc", 2 K^3 ((K+2)/2)^(L-2) for "low_rank" (even K); any number type.

    Parameters
    ----------
    K : int or symbol
        Even for the low-rank pattern.
    depth : int or symbol
        Number L of layers.
    state : {"dnc", "low_rank"}
        Pattern.

    Returns
    -------
    number

    Examples
    --------
    >>> relu_constant(6, 4, "dnc"), relu_constant(6, 4, "low_rank")
    (6480, 6912.0)
    """
    (first, m), (second, k) = relu_factors(K, depth, state)
    return first**m * second**k


def penalty(
    scale: Any, K: Any, depth: Any, decay: Any, state: str, activation: str = "identity", odd: bool = False
) -> Any:
    """(L+1)/2 Lam C c^(2/(L+1)), the least decay term of all blocks; parameters as in `objective`.

    Parameters
    ----------
    scale, K, depth, decay, state, activation, odd
        As in `objective`.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> round(penalty(1.0, 4, 3, 0.01, "dnc"), 12)
    0.06
    """
    price = cost(K, depth, state, activation, odd)
    return (depth + 1) * decay * price * scale ** (2 / (depth + 1)) / 2


def objective(
    scale: Any, K: Any, depth: Any, decay: Any, state: str, activation: str = "identity", odd: bool = False,
    xp: Any = np,
) -> Any:  # fmt: skip
    """F(c) = fit(c) + (L+1)/2 Lam C c^(2/(L+1)); any number type.

    Parameters
    ----------
    scale : number or ndarray, shape (...)
        c >= 0.
    K, depth, state, activation, odd
        As in `cost`.
    decay : number
        Lam, the geometric mean of all decays, n included.
    xp : module
        ``numpy``, ``mpmath`` or ``sympy``.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> round(float(objective(1.0, 4, 3, 0.01, "dnc")), 6)
    0.803668
    """
    return fit(scale, K, state, odd, xp) + penalty(scale, K, depth, decay, state, activation, odd)


def critical_decay(
    scale: Any, K: Any, depth: Any, state: str, activation: str = "identity", odd: bool = False, xp: Any = np
) -> Any:
    """The Lam at which a scale is critical, -fit'(c) c^((L-1)/(L+1))/C; parameters as in `objective`.

    For the linear DNC it is c^((L-1)/(L+1))/(e^c + K - 1) (eq. 19 of the paper).

    Parameters
    ----------
    scale, K, depth, state, activation, odd, xp
        As in `objective`.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> round(float(critical_decay(1.0, 4, 3, "dnc")), 6), round(1 / (np.e + 3), 6)
    (0.174878, 0.174878)
    """
    price = cost(K, depth, state, activation, odd)
    return pull(scale, K, state, odd, xp) * scale ** ((depth - 1) / (depth + 1)) / price


def theorem_1(K: int, depth: int) -> bool:
    """Whether m 2^(2/(L+1)) < 2m - 1, m = floor(K/2): the linear low-rank pattern is cheaper than DNC; in integers.

    Equivalent to (K >= 4 and L >= 3) or (K >= 6 and L = 2).

    Parameters
    ----------
    K, depth : int
        Number of classes, number L of layers.

    Returns
    -------
    bool

    Examples
    --------
    >>> theorem_1(4, 3), theorem_1(4, 2), theorem_1(6, 2)
    (True, False, True)
    """
    m = K // 2
    cheaper: bool = 4 * m ** (depth + 1) < (2 * m - 1) ** (depth + 1)
    return cheaper


def theorem_7(K: int, depth: int) -> bool:
    """Whether 2(K+2)/(K-1) < 2^(2(L-1)/(L+1)) ((K+2)/K)^(3/(L+1)), for even K; in integers.

    It says that the ReLU low-rank pattern is cheaper than the *linear* DNC, C = K - 1, below which no DNC lies.

    Parameters
    ----------
    K, depth : int
        Even number of classes, number L of layers.

    Returns
    -------
    bool

    Examples
    --------
    >>> theorem_7(12, 4), theorem_7(14, 4), theorem_7(10, 5)
    (False, True, True)
    """
    left: int = (2 * (K + 2)) ** (depth + 1) * K**3
    right: int = 4 ** (depth - 1) * (K - 1) ** (depth + 1) * (K + 2) ** 3
    return left < right


def relu_low_rank_wins(K: int, depth: int) -> bool:
    """Whether the ReLU low-rank pattern is cheaper than the ReLU DNC, for even K and L >= 2; in integers.

    2 ((K+2)/(2K))^(L-2) < (K-1)/K: even K >= 8 for L = 4, even K >= 6 for L = 5, never for L <= 3.

    Parameters
    ----------
    K, depth : int
        Even number of classes, number L >= 2 of layers.

    Returns
    -------
    bool

    Examples
    --------
    >>> relu_low_rank_wins(6, 4), relu_low_rank_wins(8, 4), relu_low_rank_wins(100, 3)
    (False, True, False)
    """
    cheaper: bool = 2 * K * (K + 2) ** (depth - 2) < (K - 1) * (2 * K) ** (depth - 2)
    return cheaper


# ------------------------------------------------------------------------------------- the evaluator


def critical_scale(
    K: int, depth: int, decay: float, state: str = "dnc", activation: str = "identity"
) -> float:
    """Larger root c of `critical_decay` = Lam: the scale of the pattern at its minimum.

    Parameters
    ----------
    K : int
        Number of classes >= 2; even for "low_rank" under ReLU.
    depth : int
        Number L of layers >= 1; >= 2 under ReLU.
    decay : float
        Lam > 0.
    state : {"dnc", "low_rank"}
    activation : {"identity", "relu"}

    Returns
    -------
    float
        0 where the decay is so strong that there is no such root.

    Raises
    ------
    InvalidProblemError
        For arguments outside these ranges.

    Examples
    --------
    >>> round(critical_scale(10, 2, 2**-10 * 5 ** (1 / 3)), 5)
    7.03754
    """
    from scipy.optimize import brentq, minimize_scalar

    choice("critical_scale.state", state, STATES)
    choice("critical_scale.activation", activation, ACTIVATIONS)
    relu = activation == "relu"
    whole("critical_scale.K", K, 2)
    whole("critical_scale.depth", depth, 2 if relu else 1)
    if not (np.isfinite(decay) and decay > 0):
        raise invalid("critical_scale.decay", decay, "a finite number > 0")
    odd = K % 2 == 1
    if odd and relu and state == "low_rank":
        raise invalid("critical_scale.K", K, "an even number for the low-rank pattern under ReLU")

    def excess(log_scale: Any) -> Any:
        found = critical_decay(np.exp(log_scale), K, depth, state, activation, odd)
        with np.errstate(divide="ignore"):  # beyond c = 745 the pull underflows
            return np.log(found) - np.log(decay)

    grid = np.linspace(-12.0, 6.0, 361)
    top = int(np.argmax(excess(grid)))
    around = grid[max(top - 1, 0)], grid[min(top + 1, len(grid) - 1)]
    peak = float(minimize_scalar(lambda x: -excess(x), bounds=around, method="bounded").x)
    if excess(peak) < 0:
        return 0.0
    high = peak + 0.5
    while excess(high) > 0:
        high += 0.5
    return float(np.exp(brentq(excess, peak, high, xtol=1e-15, rtol=8.9e-16)))


def loss(
    K: int,
    features: float,
    weights: Sequence[float],
    samples: int = 1,
    state: str = "dnc",
    activation: str = "identity",
) -> float:
    """Objective at the best scale of a pattern, decay included.

    Parameters
    ----------
    K : int
        Number of classes.
    features : float
        Decay lH of H, > 0.
    weights : sequence of float
        Decays lW_1 ... lW_L, > 0.
    samples : int
        Samples n per class.
    state : {"dnc", "low_rank"}
    activation : {"identity", "relu"}

    Returns
    -------
    float
        log K where the decay is too strong for any scale but zero.

    Raises
    ------
    InvalidProblemError
        For decays that are not > 0, and for what `critical_scale` refuses.

    Examples
    --------
    >>> lam = 2**-10
    >>> round(loss(10, lam, [lam] * 2, 5), 8), round(loss(10, lam, [lam] * 2, 5, "low_rank"), 8)
    (0.09066218, 0.08001266)
    """
    if not all(np.isfinite(rate) and rate > 0 for rate in (features, *weights)):
        raise invalid("loss.features, loss.weights", (features, *weights), "finite numbers > 0")
    whole("loss.samples", samples)
    depth, decay = len(weights), float(geometric_decay(features, weights, samples))
    scale = critical_scale(K, depth, decay, state, activation)
    return float(objective(scale, K, depth, decay, state, activation, K % 2 == 1))


# read in full, but the displayed equations were missing in the text
ACCESS = "read in full but for displayed equations, derived here"
ROOM = "deep_cross_entropy"

CLAIMS = (
    Claim(
        name="ufm.deep_cross_entropy",
        statement=(
            "Deep cross-entropy at class means c P of the logits: fit(c) + (L+1)/2 Lam C c^(2/(L+1)), critical where "
            "Lam = -fit'(c) c^((L-1)/(L+1))/C, in closed form for DNC and for opposed pairs, linear and ReLU; linear "
            "DNC: Lam = c^((L-1)/(L+1))/(e^c + K - 1) (eq. 19)."
        ),
        source=Source(PAPER, "section 4, appendices; unequal decays and ReLU DNC", ACCESS),
        room=ROOM,
        figure="persistence",
        layers={
            "symbolic": "critical scales for symbolic K, L, Lam; fits and costs of explicit patterns for K = 4..7",
            "simulation": "objective of the explicit matrices to 1e-13 at random K, L, n, decays",
        },
    ),
    Claim(
        name="garrod2025.thm1",
        statement=(
            "Deep linear cross-entropy: DNC is not globally optimal if m 2^(2/(L+1)) < 2m - 1, m = floor(K/2), that is "
            "for K >= 4, L >= 3 and K >= 6, L = 2: at DNC's own scale opposed pairs have a smaller fit and a smaller "
            "penalty, at every n and every decay."
        ),
        source=Source(PAPER, "theorem 1; at every decay and scale", ACCESS),
        room=ROOM,
        figure="dufm_phase_diagram",
        layers={"symbolic": "proved for all K and L; exact integers"},
    ),
    Claim(
        name="garrod2025.thm7",
        statement=(
            "ReLU, even K: opposed pairs over features X + J are cheaper than the linear DNC iff 2(K+2)/(K-1) < "
            "2^(2(L-1)/(L+1)) ((K+2)/K)^(3/(L+1)): even K >= 14 for L = 4, >= 10 for L = 5, >= 8 for L = 6 and 7, none "
            "for L = 3."
        ),
        source=Source(PAPER, "theorem 7", ACCESS),
        room=ROOM,
        layers={"symbolic": "the inequality for symbolic K, L; the table for all even K, L = 3..7"},
    ),
    Claim(
        name="ufm.relu_pairs",
        statement=(
            "Against the ReLU DNC itself (features I, W_L = S, C^(L+1) = K^L (K-1)) the opposed pairs of theorem 7 are "
            "cheaper iff 2 ((K+2)/(2K))^(L-2) < (K-1)/K: even K >= 8 for L = 4, >= 6 for L = 5, >= 4 for L >= 6, none "
            "for L <= 3; then their loss is smaller at every decay that leaves this DNC a critical scale."
        ),
        source=Source(HERE, "theorem 7 with the cost of the ReLU DNC", "derived here"),
        room=ROOM,
        layers={"symbolic": "proved for all even K and all L >= 2; exact polynomials"},
    ),
    Claim(
        name="dang2023.deep_ce.erratum",
        statement=(
            "That every global optimum of the deep linear model with cross-entropy is a simplex ETF (Dang et al., "
            "cross-entropy part) is false for K >= 4, L >= 3 and K >= 6, L = 2, already for K = 4, L = 3: 64 < 81. "
            "Corrected: no ETF is optimal there (theorem 1). The parts on squared error stand."
        ),
        source=Source(
            "Dang et al., arXiv 2301.00437", f"cross-entropy theorem, as reported in {PAPER}", "not read"
        ),
        room=ROOM,
        layers={
            "symbolic": "exact integers for every n, decay and scale; two instances certified by interval arithmetic",
        },
    ),
)
