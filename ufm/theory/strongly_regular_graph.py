r"""Low-rank solutions of the deep unconstrained features model that beat deep neural collapse (DNC): the SRG states.

Objective, with s = ReLU, n samples in each of K classes and N = K n:

    F = ||Z - Y||_F^2/(2N) + sum_l lW_l/2 ||W_l||_F^2 + lH/2 ||H_1||_F^2,  H_2 = W_1 H_1,  H_{l+1} = W_l s(H_l),
    Z = W_L s(H_L),    Lam = (n lH lW_1 ... lW_L)^(1/(L+1))

For K = r(r-1)/2 the classes are the edges of the complete graph on r vertices; B is its vertex-edge incidence
matrix. B B^T = (r-2) I + J, and B^T B = 2 I + A1 with A1 the adjacency matrix of the triangular graph (edges that
share a vertex), A2 = J - I - A1 that of the Kneser graph (disjoint edges): both strongly regular. The state:

    H_2 = a B (balanced between W_1 and H_1),  W_l = c_l I_r,  W_{L-1} = neurons +-1/2 of vertices,
    W_L = the least-norm (or ridge) map from the last features back to the classes.

A neuron that is + on a set of s vertices and - off it answers to the edges inside the set and to no other. All edges,
s = 2, give the "identity" variant, s(M_L) ~ I; their complements, s = r - 2, the "kneser" variant, s(M_L) ~ A2; the
"best" design weighs sizes so that the product of the last two layers' norms is smallest. With unit Frobenius norm of
W_{L-1} the last features have Gram matrix M, constant on the relations I, A1, A2, so everything follows from its
three eigenvalues. The product of the squared norms of all factors is at least

    C x^2,   C = S_r^2 r^(L-3) tr M^{-1},   S_r = ||B||_* = sqrt(2(r-1)) + (r-1) sqrt(r-2)

and the loss is that of DNC with K replaced by D = C^(1/(L+1)) (`ufm.theory.deep_collapse`). Blocks of classes decouple:
a block of K_b classes pays as if alone, with K D_b/K_b in place of D. Everything here is derived from the figure
captions of Sukenik, Lampert and Mondelli (arXiv 2405.14468), whose theorems were recalled and not read; which of the
variants is theirs is not known for r >= 6.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from ufm.checks import choice, whole
from ufm.claims import Claim, Source
from ufm.errors import invalid
from ufm.theory.deep_collapse import exactly, geometric_decay, shortfall, stationary_loss

PAPER = "Sukenik, Lampert, Mondelli, arXiv 2405.14468"
VARIANTS = ("kneser", "identity", "best")

Spectrum = tuple[tuple[Any, Any], ...]  # eigenvalues, each with its multiplicity


# ---------------------------------------------------------------------------- the graph; any number type


def classes_of(r: Any) -> Any:
    """Number K = r(r-1)/2 of edges of the complete graph on r vertices; any number type.

    Parameters
    ----------
    r : int or symbol
        Number of vertices.

    Returns
    -------
    int or symbol

    Examples
    --------
    >>> classes_of(5)
    10
    """
    return r * (r - 1) // 2 if isinstance(r, int) else r * (r - 1) / 2


def vertices_of(K: int) -> int | None:
    """The r >= 3 with r(r-1)/2 = K, or None where K is no such number.

    Parameters
    ----------
    K : int
        Number of classes.

    Returns
    -------
    int or None

    Examples
    --------
    >>> vertices_of(10), vertices_of(12)
    (5, None)
    """
    r = (1 + math.isqrt(1 + 8 * K)) // 2
    return r if r >= 3 and classes_of(r) == K else None


def vertices_formula(K: Any, xp: Any = np) -> Any:
    """r = (1 + sqrt(1 + 8 K))/2, the number of vertices and the rank of the SRG; any number type.

    Parameters
    ----------
    K : int or symbol
        Number of classes.
    xp : module
        ``numpy``, ``sympy`` or ``mpmath``.

    Returns
    -------
    number

    Examples
    --------
    >>> float(vertices_formula(10))
    5.0
    """
    return (1 + xp.sqrt(1 + 8 * K)) / 2


def incidence(r: int) -> np.ndarray:
    """Vertex-edge incidence matrix B of the complete graph, edges in lexicographic order.

    Parameters
    ----------
    r : int
        Number of vertices >= 2.

    Returns
    -------
    ndarray of int, shape (r, r (r-1)/2)

    Raises
    ------
    InvalidProblemError
        For an r that is no whole number >= 2.

    Examples
    --------
    >>> incidence(3)
    array([[1, 1, 0],
           [1, 0, 1],
           [0, 1, 1]])
    """
    r = whole("incidence.r", r, 2)
    B = np.zeros((r, classes_of(r)), int)
    for edge, ends in enumerate(combinations(range(r), 2)):
        B[ends, edge] = 1
    return B


def incidence_spectrum(r: Any, xp: Any = np) -> Spectrum:
    """Singular values of B with multiplicities: sqrt(2(r-1)) once, sqrt(r-2) r - 1 times; any number type.

    Parameters
    ----------
    r : int or symbol
        Number of vertices.
    xp : module
        ``numpy``, ``sympy`` or ``mpmath``.

    Returns
    -------
    tuple of pairs of number
        Value and multiplicity.

    Examples
    --------
    >>> [(round(float(value), 6), m) for value, m in incidence_spectrum(6)]
    [(3.162278, 1), (2.0, 5)]
    """
    return (xp.sqrt(2 * (r - 1)), 1), (xp.sqrt(r - 2), r - 1)


def nuclear_norm(r: Any, xp: Any = np) -> Any:
    """S_r = sqrt(2(r-1)) + (r-1) sqrt(r-2), the sum of the singular values of B; any number type.

    Parameters
    ----------
    r : int or symbol
        Number of vertices.
    xp : module
        ``numpy``, ``sympy`` or ``mpmath``.

    Returns
    -------
    number

    Examples
    --------
    >>> round(float(nuclear_norm(6)), 6)
    13.162278
    """
    return sum(m * value for value, m in incidence_spectrum(r, xp))


def relation_eigenvalues(r: Any) -> tuple[tuple[Any, Any, Any], ...]:
    """Eigenvalues of A1 and A2 on their three common eigenspaces, and the multiplicities; any number type.

    (A1, A2, multiplicity): (2(r-2), C(r-2, 2), 1), (r-4, -(r-3), r-1), (-2, 1, r(r-3)/2).

    Parameters
    ----------
    r : int or symbol
        Number of vertices.

    Returns
    -------
    tuple of triples of number

    Examples
    --------
    >>> relation_eigenvalues(5)
    ((6, 3.0, 1), (1, -2, 4), (-2, 1, 5.0))
    """
    return (
        (2 * (r - 2), (r - 2) * (r - 3) / 2, 1),
        (r - 4, -(r - 3), r - 1),
        (-2, 1, r * (r - 3) / 2),
    )


# ------------------------------------------------------------------------- the last two layers; any number type


def inverse_norm(r: Any, variant: str) -> Any:
    """nu = ||s(M_L)^{-1}||_F^2: K for "identity", sum_i m_i/theta_i^2 of the Kneser graph for "kneser".

    nu_kneser = 1/C(r-2, 2)^2 + (r-1)/(r-3)^2 + r(r-3)/2, for r >= 4; any number type.

    Parameters
    ----------
    r : int or symbol
        Number of vertices.
    variant : {"identity", "kneser"}
        Which of the two graphs the last features show.

    Returns
    -------
    number

    Examples
    --------
    >>> inverse_norm(5, "identity"), inverse_norm(5, "kneser")
    (10, 6.111111111111111)
    """
    if variant == "identity":
        return classes_of(r)
    return sum(m / theta**2 for _, theta, m in relation_eigenvalues(r))


def last_layers(r: Any, variant: str) -> Any:
    """||W_{L-1}||^2 ||W_L||^2 at output I and unit features B: (K r/4) nu; any number type.

    Parameters
    ----------
    r : int or symbol
        Number of vertices.
    variant : {"identity", "kneser"}
        Which of the two graphs the last features show.

    Returns
    -------
    number

    Examples
    --------
    >>> last_layers(5, "identity")
    125.0
    """
    return classes_of(r) * r * inverse_norm(r, variant) / 4


def subset_spectrum(r: Any, s: Any) -> Spectrum:
    """Eigenvalues of the Gram matrix of neurons on all s-subsets, of unit norm together; any number type, r >= 4.

    An edge, two edges with a common vertex and two disjoint ones lie inside a random s-subset with probability
    p2 = s(s-1)/(r(r-1)), p3 = p2 (s-2)/(r-2) and p4 = p3 (s-3)/(r-3), so M = (4/r)(p2 I + p3 A1 + p4 A2).

    Parameters
    ----------
    r, s : int or symbol
        Number of vertices, size of a subset of the vertices.

    Returns
    -------
    tuple of pairs of number
        Eigenvalue and multiplicity.

    Examples
    --------
    >>> subset_spectrum(5, 2)
    ((0.08, 1), (0.08, 4), (0.08, 5.0))
    """
    p2 = s * (s - 1) / (r * (r - 1))
    p3 = p2 * (s - 2) / (r - 2)
    p4 = p3 * (s - 3) / (r - 3)
    return tuple((4 * (p2 + a1 * p3 + a2 * p4) / r, m) for a1, a2, m in relation_eigenvalues(r))


def design_spectrum(r: Any, design: Mapping[Any, Any]) -> Spectrum:
    """`subset_spectrum` of a mixture, weights by subset size with sum 1; any number type, r >= 4.

    Parameters
    ----------
    r : int or symbol
        Number of vertices.
    design : mapping of int to number
        Weight by subset size, with sum 1.

    Returns
    -------
    tuple of pairs of number
        Eigenvalue and multiplicity.

    Examples
    --------
    >>> [(round(value, 12), m) for value, m in design_spectrum(4, {2: 0.75, 3: 0.25})]
    [(0.5, 1), (0.25, 3), (0.125, 2.0)]
    """
    parts = [(weight, subset_spectrum(r, s)) for s, weight in design.items()]
    return tuple(
        (sum(weight * spectrum[i][0] for weight, spectrum in parts), parts[0][1][i][1]) for i in range(3)
    )


def inverse_trace(spectrum: Spectrum) -> Any:
    """tr M^{-1}: the smallest ||W_{L-1}||^2 ||W_L||^2 at output I and unit features B; any number type.

    Parameters
    ----------
    spectrum : tuple of pairs of number
        Eigenvalues with multiplicities.

    Returns
    -------
    number

    Examples
    --------
    >>> inverse_trace(((0.5, 1), (0.25, 2)))
    10.0
    """
    return sum(m / value for value, m in spectrum)


def design_directions(r: Any, design: Mapping[Any, Any], sizes: Sequence[Any]) -> dict[Any, Any]:
    """tr(M^{-1} M_s M^{-1})/tr M^{-1} for each size s: all <= 1 iff no mixture of these sizes is better.

    tr M^{-1} is convex in the weights, so this (the equivalence theorem of A-optimal designs) is its optimality
    condition; any number type.

    Parameters
    ----------
    r : int or symbol
        Number of vertices.
    design : mapping of int to number
        Weight by subset size, with sum 1.
    sizes : sequence of int
        Sizes s to look at.

    Returns
    -------
    dict of int to number

    Examples
    --------
    >>> {size: round(slope, 6) for size, slope in design_directions(4, best_design(4), (2, 3)).items()}
    {2: 1.0, 3: 1.0}
    """
    spectrum = design_spectrum(r, design)
    trace = inverse_trace(spectrum)
    found = {}
    for s in sizes:
        pairs = zip(spectrum, subset_spectrum(r, s), strict=True)
        found[s] = sum(m * own / value**2 for (value, m), (own, _) in pairs) / trace
    return found


def best_design(r: int) -> dict[int, float]:
    """Weights of the subset sizes for which ||W_{L-1}||^2 ||W_L||^2 is smallest.

    One size, except for r = 4 (3/4 edges, 1/4 triangles). Among all neurons +-1/sqrt r that are a mixture of
    subset sizes this is optimal (`design_directions`; checked exactly for r = 4 ... 12).

    Parameters
    ----------
    r : int
        Number of vertices >= 4.

    Returns
    -------
    dict
        Weight by subset size.

    Raises
    ------
    InvalidProblemError
        For an r that is no whole number >= 4.

    Examples
    --------
    >>> best_design(4), best_design(7)
    ({2: 0.75, 3: 0.25}, {4: 1.0})
    """
    r = whole("best_design.r", r, 4)
    if r == 4:
        return {2: 0.75, 3: 0.25}
    return {min(range(2, r - 1), key=lambda s: inverse_trace(subset_spectrum(r, s))): 1.0}


def variant_design(r: int, variant: str) -> dict[int, float]:
    """Weights of the subset sizes of a variant: edges, their complements, or the best.

    Parameters
    ----------
    r : int
        Number of vertices.
    variant : {"identity", "kneser", "best"}
        Which design.

    Returns
    -------
    dict of int to float

    Raises
    ------
    InvalidProblemError
        For an unknown variant, or too few vertices for it.

    Examples
    --------
    >>> variant_design(6, "kneser")
    {4: 1.0}
    """
    choice("variant", variant, VARIANTS)
    least = 3 if variant == "identity" else 4
    if r < least:
        raise invalid("classes", classes_of(r), f"at least {classes_of(least)} for variant {variant!r}")
    if variant == "best":
        return best_design(r)
    return {2 if variant == "identity" else r - 2: 1.0}


def last_rank(r: int, design: Mapping[int, float]) -> int:
    """Rank of M_L, the class means of the last hidden layer before its ReLU.

    r, and r - 1 where every neuron is + on exactly half of the vertices and so orthogonal to the mean one: the
    Kneser and the identity variant at r = 4, the best one at r = 6 and 8.

    Parameters
    ----------
    r : int
        Number of vertices.
    design : mapping of int to number
        Weight by subset size, with sum 1.

    Returns
    -------
    int

    Examples
    --------
    >>> last_rank(5, {3: 1.0}), last_rank(4, {2: 1.0}), last_rank(4, {2: 0.75, 3: 0.25})
    (5, 3, 4)
    """
    return r - 1 if all(2 * size == r for size in design) else r


def product_constant(r: Any, depth: Any, last: Any, xp: Any = np) -> Any:
    """C = S_r^2 r^(L-3) `last`, the product of the squared norms of all factors at output I; any number type.

    Parameters
    ----------
    r, depth : int or symbol
        Number of vertices, number L of layers.
    last : number
        Product of the squared norms of the last two layers, see `last_layers`.
    xp : module
        ``numpy``, ``sympy`` or ``mpmath``.

    Returns
    -------
    number

    Examples
    --------
    >>> float(round(product_constant(5, 4, last_layers(5, "kneser")) ** (1 / 5) / 10, 6))
    0.816808
    """
    return nuclear_norm(r, xp) ** 2 * r ** (depth - 3) * last


# -------------------------------------------------------------------------------------- losses of blocks


class Block(NamedTuple):
    """What the loss asks of one block of classes: features of `rows` rows, then neurons of unit Frobenius norm.

    Parameters
    ----------
    classes : int
        Number K_b of classes in the block.
    rows : int
        Rows p of the features, which the layers between copy.
    nuclear_norm : float
        Of the features, shape (rows, classes).
    spectrum : tuple
        Eigenvalues of the Gram matrix of the neurons' outputs, with multiplicities.

    Examples
    --------
    >>> graph_block(5).rows, collapsed_block(10).rows
    (5, 10)
    """

    classes: Any
    rows: Any
    nuclear_norm: Any
    spectrum: Spectrum


class Minimum(NamedTuple):
    """Best scales of a block.

    Parameters
    ----------
    loss : float
        Its part of the objective.
    share : float
        rate times squared norm (times n for H), the same for each factor before the last.
    scale : float
        Of the last features, in units of those of `Block`; 0 where the block is at zero.
    gain : float or None
        Output x where it is x I, None where the last layer is a ridge.

    Examples
    --------
    >>> collapsed_minimum(collapsed_block(3), 10.0, [10.0] * 3, 1, 3)  # at zero
    Minimum(loss=0.5, share=0.0, scale=0.0, gain=0.0)
    """

    loss: Any
    share: Any
    scale: Any
    gain: Any = None


def graph_block(r: int, variant: str = "kneser") -> Block:
    """The block of an SRG on r(r-1)/2 classes; variants as in `variant_design`.

    Parameters
    ----------
    r : int
        Number of vertices.
    variant
        As in `variant_design`.

    Returns
    -------
    Block

    Examples
    --------
    >>> graph_block(5).classes, round(graph_block(5).nuclear_norm, 6)
    (10, 9.75663)
    """
    design = variant_design(r, variant)
    K = classes_of(r)
    spectrum: Spectrum = ((4 / (K * r), K),) if variant == "identity" else design_spectrum(r, design)
    return Block(K, r, float(nuclear_norm(r)), spectrum)


def collapsed_block(K: Any) -> Block:
    """The block of DNC on K classes: features I, one neuron for each; any number type.

    Parameters
    ----------
    K : int or symbol
        Number of classes.

    Returns
    -------
    Block

    Examples
    --------
    >>> collapsed_block(4)
    Block(classes=4, rows=4, nuclear_norm=4, spectrum=((0.25, 4),))
    """
    return Block(K, K, K, ((1 / K, K),))


def block_spread(block: Block, depth: Any) -> Any:
    """D_b = C^(1/(L+1)) of a block, C the product of the squared norms of its factors at output I; any number type.

    Parameters
    ----------
    block : Block
        Of classes.
    depth : int or symbol
        Number L of layers.

    Returns
    -------
    number

    Examples
    --------
    >>> round(block_spread(collapsed_block(10), 3), 12)
    10.0
    """
    root = 1 / (depth + 1)  # root by root: the product overflows at a few hundred layers
    ends = block.nuclear_norm**2 * inverse_trace(block.spectrum)
    return ends**root * block.rows ** ((depth - 3) * root)


def block_strength(block: Block, classes: Any, decay: Any, depth: Any) -> Any:
    """(K/K_b) D_b Lam: strength of the master problem that a block poses; any number type.

    Parameters
    ----------
    block : Block
        Of classes.
    classes : int or symbol
        Number K of classes in all.
    decay : number
        Lam, the geometric mean of all decays, n included.
    depth : int or symbol
        Number L of layers.

    Returns
    -------
    number

    Examples
    --------
    >>> round(block_strength(collapsed_block(10), 10, 0.01, 3), 12)
    0.1
    """
    return classes * decay * block_spread(block, depth) / block.classes


def feature_strength(block: Block, features: Any, weights: Sequence[Any], samples: Any, xp: Any = np) -> Any:
    """Q = (n lH lW_1 ... lW_{L-1} S^2 p^(L-3))^(1/L), L = len(weights); any number type.

    Last features of scale s cost at least (L/2) Q s^(2/L) in the layers before the last.

    Parameters
    ----------
    block : Block
        Of classes.
    features, weights : number, sequence of number
        Decay of H and of W_1 ... W_L.
    samples : int or symbol
        Samples n per class.
    xp : module
        ``numpy``, ``sympy`` or ``mpmath``.

    Returns
    -------
    number

    Examples
    --------
    >>> round(feature_strength(collapsed_block(4), 0.01, [0.01] * 3, 1), 12)
    0.025198420998
    """
    depth = exactly(len(weights), xp)
    root = 1 / depth
    # root by root: a product of many decays would underflow
    found = (samples * features * block.nuclear_norm**2) ** root * block.rows ** ((depth - 3) * root)
    for rate in weights[:-1]:
        found = found * rate**root
    return found


def relaxed_loss(scale: Any, spectrum: Spectrum, classes: Any, last: Any, strength: Any, depth: Any) -> Any:
    """F(s) = sum_i m_i lW_L/(2(K lW_L + s^2 lam_i)) + (L/2) Q s^(2/L): the last layer is a ridge; any number type.

    Parameters
    ----------
    scale : number or ndarray, shape (...)
        Scale s > 0 of the last features.
    spectrum : tuple
        Eigenvalues lam_i of their Gram matrix at s = 1, with multiplicities m_i.
    classes : int
        Number K of classes in all.
    last : float
        Decay lW_L of the last layer.
    strength : float
        Q of `feature_strength`.
    depth : int
        Number L of layers.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> round(relaxed_loss(1.0, ((0.25, 4),), 4, 0.01, 0.02, 3), 6)
    0.098966
    """
    ridge = sum(m * last / (2 * (classes * last + scale**2 * value)) for value, m in spectrum)
    return ridge + depth * strength * scale ** (2 / depth) / 2


def relaxed_balance(scale: Any, spectrum: Spectrum, classes: Any, last: Any, depth: Any) -> Any:
    """The Q at which `scale` is stationary: sum_i m_i lW_L lam_i s^(2-2/L)/(K lW_L + s^2 lam_i)^2; any number type.

    Parameters
    ----------
    scale : number or ndarray, shape (...)
        s > 0 of the last features.
    spectrum : tuple of pairs of number
        Eigenvalues with multiplicities.
    classes : int or symbol
        Number K of classes in all.
    last : number
        Decay lW_L of the last layer.
    depth : int or symbol
        Number L of layers.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> round(relaxed_balance(1.0, ((0.25, 4),), 4, 0.01, 3), 6)
    0.118906
    """
    power = 2 - 2 / depth
    return sum(
        m * last * value * scale**power / (classes * last + scale**2 * value) ** 2 for value, m in spectrum
    )


def collapsed_minimum(
    block: Block, features: float, weights: Sequence[float], samples: int, classes: int
) -> Minimum:
    """Scales of a block at which its output is a multiple x I of the targets.

    Parameters
    ----------
    block : Block
    features : float
        Decay lH of H, > 0.
    weights : sequence of float
        Decays lW_1 ... lW_L, > 0, L >= 3.
    samples : int
        Samples n per class.
    classes : int
        Number K of classes in all.

    Returns
    -------
    Minimum

    Examples
    --------
    >>> found = collapsed_minimum(collapsed_block(10), 0.004, [0.004] * 3, 1, 10)
    >>> round(found.gain, 6), round(found.loss, 6)
    (0.959157, 0.079183)
    """
    depth = len(weights)
    decay = geometric_decay(features, weights, samples)
    strength = float(block_strength(block, classes, decay, depth))
    missing = float(shortfall(strength, depth))
    x = 1 - missing
    # per factor and in units of the whole objective: D_b Lam x^(2/(L+1))
    share = strength * block.classes / classes * x ** (2 / (depth + 1))
    # the last layer's share is lW_L x^2 tr M^{-1}/s^2
    scale = x * math.sqrt(weights[-1] * inverse_trace(block.spectrum) / share) if x else 0.0
    return Minimum(block.classes / classes * stationary_loss(x, depth, missing), share, scale, x)


def relaxed_minimum(
    block: Block, features: float, weights: Sequence[float], samples: int, classes: int
) -> Minimum:
    """Best scales of a block whose eigenspaces may shrink differently; parameters as in `collapsed_minimum`.

    The minimum of largest scale; where there is none, the block is at zero.

    Parameters
    ----------
    block, features, weights, samples, classes
        As in `collapsed_minimum`.

    Returns
    -------
    Minimum

    Examples
    --------
    >>> found = relaxed_minimum(collapsed_block(10), 0.004, [0.004] * 3, 1, 10)
    >>> round(found.loss, 6)
    0.079183
    """
    from scipy.optimize import brentq

    depth, last = len(weights), weights[-1]
    strength = float(feature_strength(block, features, weights, samples))

    def excess(log_scale: Any) -> Any:
        balance = relaxed_balance(np.exp(log_scale), block.spectrum, classes, last, depth)
        return np.log(balance / strength)

    # each term of the balance rises to its peak and falls, so beyond the last peak the sum falls
    peaks = [
        0.5 * np.log(classes * last * (depth - 1) / ((depth + 1) * value)) for value, _ in block.spectrum
    ]
    grid = np.linspace(min(peaks), max(peaks), 257)
    above = np.flatnonzero(excess(grid) >= 0)
    if not len(above):
        return Minimum(block.classes / (2 * classes), 0.0, 0.0)
    low = grid[above[-1]]
    high = low + 1.0
    while excess(high) > 0:
        high += 1.0
    scale = float(np.exp(brentq(excess, low, high, xtol=1e-15, rtol=8.9e-16)))
    loss = float(relaxed_loss(scale, block.spectrum, classes, last, strength, depth))
    return Minimum(loss, strength * scale ** (2 / depth), scale)


def loss(
    vertices: int,
    features: float,
    weights: Sequence[float],
    samples: int = 1,
    variant: str = "kneser",
    relaxed: bool = True,
    classes: int | None = None,
) -> float:
    """Objective at the SRG with its best scales, decay included.

    Parameters
    ----------
    vertices : int
        Number r of vertices; the SRG holds r(r-1)/2 classes.
    features : float
        Decay lH of H, > 0.
    weights : sequence of float
        Decays lW_1 ... lW_L, > 0, L >= 3.
    samples : int
        Samples n per class.
    variant : {"kneser", "identity", "best"}
        Last two layers, see `variant_design`.
    relaxed : bool
        Whether the last layer is a ridge (the best one), or the output is a multiple of the targets.
    classes : int, optional
        Number K of classes in all, r(r-1)/2 by default; the others form a block of DNC.

    Returns
    -------
    float
        1/2 where the decay is too strong for any scale but zero.

    Raises
    ------
    InvalidProblemError
        For fewer than three layers, decays that are not > 0, an unknown variant, or too few vertices or classes.

    Examples
    --------
    >>> round(loss(5, 0.004, [0.004] * 4), 8)
    0.08091133
    >>> round(loss(5, 0.004, [0.004] * 4, relaxed=False, classes=12), 6)
    0.100827
    """
    if len(weights) < 3:
        raise invalid("loss.weights", tuple(weights), "the decays of at least 3 layers")
    if not all(np.isfinite(rate) and rate > 0 for rate in (features, *weights)):
        raise invalid("loss.features, loss.weights", (features, *weights), "finite numbers > 0")
    whole("loss.samples", samples)
    block = graph_block(whole("loss.vertices", vertices, 3), variant)
    K = whole("loss.classes", block.classes if classes is None else classes, block.classes)
    best = relaxed_minimum if relaxed else collapsed_minimum
    found: float = best(block, features, weights, samples, K).loss
    rest = K - block.classes
    if not rest:
        return found
    found += collapsed_minimum(collapsed_block(rest), features, weights, samples, K).loss
    return found


def loss_ratio(vertices: int, depth: int, variant: str = "kneser") -> float:
    """D_SRG/K, the loss over that of DNC as the decay tends to 0; below 1 the SRG beats DNC at every decay.

    Parameters
    ----------
    vertices, depth : int
        r and L.
    variant
        As in `variant_design`.

    Returns
    -------
    float

    Examples
    --------
    >>> round(loss_ratio(5, 3), 4), round(loss_ratio(5, 4, "identity"), 4)
    (0.9234, 0.9014)
    """
    block = graph_block(vertices, variant)
    return float(block_spread(block, depth) / block.classes)


HERE = "this package"
ROOM, FIGURE = "strongly_regular_graph", "dufm_srg_structure"

CLAIMS = (
    Claim(
        name="ufm.srg_spectrum",
        statement=(
            "Edges of the complete graph on r vertices: B B^T = (r-2) I + J, so ||B||_* = sqrt(2(r-1)) + "
            "(r-1) sqrt(r-2); sharing a vertex has eigenvalues 2(r-2), r-4, -2 and being disjoint C(r-2,2), -(r-3), 1, "
            "of multiplicities 1, r-1, r(r-3)/2."
        ),
        source=Source(HERE, "triangular and Kneser graphs, well known", "derived here"),
        room=ROOM,
        figure=FIGURE,
        layers={"symbolic": "from the relations' counts for symbolic r; the counts for r = 4..7"},
    ),
    Claim(
        name="ufm.srg_loss",
        statement=(
            "K = r(r-1)/2, L >= 3, ReLU, squared error: features a B, layers c_l I_r, neurons +-1/2 of vertices and "
            "the least last layer have loss (1 - x)(1 + L x)/2 with DNC's K replaced by D, D^(L+1) = "
            "||B||_*^2 r^(L-3) (K r/4) nu, nu = K (identity) or sum m_i/theta_i^2 (Kneser); a block of K_b classes has "
            "K_b/K times it, with D K/K_b for D."
        ),
        source=Source(
            PAPER, "figure 1: the pattern of M_3 and the ranks; scales and constants", "derived here"
        ),
        room=ROOM,
        figure=FIGURE,
        layers={
            "symbolic": "scales for symbolic r, n, decays and L = 3..5; neurons for r = 4..7",
            "simulation": "objective of the explicit matrices to 1e-13 at random r, L, n, decays",
        },
    ),
    Claim(
        name="ufm.srg_relaxed_output",
        statement=(
            "With the last layer a ridge the loss is sum_i m_i lW_L/(2(K lW_L + s^2 lam_i)) + (L/2) Q s^(2/L) at its "
            "best s: the eigenspaces shrink differently and the loss is at most that of output x I."
        ),
        source=Source(HERE, "SRG with the best last layer", "derived here"),
        room=ROOM,
        figure=FIGURE,
        layers={"symbolic": "proved for symbolic L, K, s, decays, eigenvalues and multiplicities"},
    ),
    Claim(
        name="ufm.srg_designs",
        statement=(
            "Neurons + on s vertices and - on the others, all such sets together: ||W_{L-1}||^2 ||W_L||^2 = tr M^{-1} "
            "in closed form for every r and s. The best mixture of sizes is 3/4 edges and 1/4 triangles for r = 4 (30 "
            "instead of 36), one size s = 3, 3, 4, 4, 5, 5, 6, 6 for r = 5..12; only for r = 5 is it the Kneser "
            "variant."
        ),
        source=Source(HERE, "A-optimal design of the last two layers", "derived here"),
        room=ROOM,
        figure="dufm_landscape",
        layers={
            "symbolic": "eigenvalues for symbolic r, s from counts for r = 4..7; optimality for r = 4..12"
        },
    ),
    Claim(
        name="ufm.srg_rank",
        statement=(
            "Class means of the SRG have rank r = (1 + sqrt(1 + 8K))/2 = Theta(sqrt K), sqrt(2K) < r < sqrt(2K) + 1, "
            "in layers 2..L-1, K after the last ReLU and r before it, but r - 1 where every neuron is + on half of the "
            "vertices (r = 4: both variants)."
        ),
        source=Source(PAPER, "figure 1 for r = 5; general r and the exception", "derived here"),
        room=ROOM,
        figure=FIGURE,
        layers={"symbolic": "bounds for symbolic K; ranks of explicit matrices for r = 4..8, all variants"},
    ),
    Claim(
        name="sukenik2024.dnc_not_optimal",
        statement=(
            "DNC with squared error, ReLU and widths >= K is not globally optimal for L = 3, K >= 10 and for L >= 4, "
            "K >= 6: an SRG on 10 (on 6) of the classes and DNC on the others has a smaller loss, at every decay at "
            "which DNC is not zero. At output x I it shows this for no smaller K. With the best design (10 neurons) "
            "and a ridge six classes suffice for L = 3 too, at strong decay: n = 1, all 0.0393125, 0.4373 below 0.4395."
        ),
        source=Source(PAPER, "theorem on sub-optimality; proof by exact constants derived here", "recalled"),
        room=ROOM,
        figure="dufm_phase_diagram",
        layers={"symbolic": "exact constants, every K and symbolic L; exact at one decay for L = 3, K = 6"},
    ),
)
