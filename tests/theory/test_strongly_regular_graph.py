"""SRG losses and constants against tables, brute-force scales and brute-force designs."""

from itertools import combinations

import mpmath
import numpy as np
import pytest
from scipy.optimize import brentq, minimize

from ufm.errors import InvalidProblemError
from ufm.theory import strongly_regular_graph as graph
from ufm.theory.deep_collapse import gain, geometric_decay, objective, stationary_loss, zero_limit

# K = 10, L = 4, all decays 0.004, by n: DNC, identity, Kneser with output x I, Kneser relaxed
LOSSES = {
    1: (0.09917987, 0.08947089, 0.08113619, 0.08091133),
    5: (0.13639618, None, 0.11165238, 0.11121934),
    10: (0.15639731, None, 0.12807034, 0.12749530),
    50: (0.21462332, 0.19383167, 0.17594183, 0.17482602),
    100: (0.24579583, None, 0.20162180, 0.20013376),
}
# loss over DNC's as the decay tends to 0, by r: identity, Kneser, best at L = 3, 4, 5
RATIOS = {
    4: (1.0561, 1.0561, 1.0090, 0.9633, 0.9633, 0.9288, 0.9060, 0.9060, 0.8788),
    5: (1.0444, 0.9234, 0.9234, 0.9014, 0.8168, 0.8168, 0.8170, 0.7527, 0.7527),
    6: (1.0367, 0.9268, 0.8636, 0.8569, 0.7834, 0.7404, 0.7547, 0.7004, 0.6682),
    7: (1.0312, 0.9381, 0.8191, 0.8227, 0.7628, 0.6843, 0.7077, 0.6645, 0.6070),
    8: (1.0271, 0.9476, 0.7722, 0.7952, 0.7456, 0.6329, 0.6705, 0.6354, 0.5544),
    9: (1.0240, 0.9549, 0.7398, 0.7724, 0.7304, 0.5955, 0.6400, 0.6109, 0.5153),
    10: (1.0215, 0.9606, 0.7043, 0.7529, 0.7168, 0.5592, 0.6144, 0.5897, 0.4795),
    11: (1.0195, 0.9650, 0.6787, 0.7361, 0.7044, 0.5316, 0.5924, 0.5711, 0.4517),
    12: (1.0178, 0.9686, 0.6511, 0.7212, 0.6932, 0.5045, 0.5732, 0.5546, 0.4256),
}
# Kneser with output x I over DNC at decay 0.004, n = 1: depth, smallest r, ratios
RATIOS_AT_DECAY = [
    (3, 5, (0.9242, 0.9279, 0.9395, 0.9492, 0.9568, 0.9628, 0.9677, 0.9718)),
    (4, 4, (0.9634, 0.8181, 0.7857, 0.7662, 0.7505, 0.7374, 0.7264)),
    (5, 4, (0.9063, 0.7540, 0.7027, 0.6680, 0.6405, 0.6179)),
]


def dnc_loss(classes, depth, lam, samples=1) -> float:
    x = gain(classes * geometric_decay(lam, [lam] * depth, samples), depth)
    return stationary_loss(x, depth)


@pytest.mark.parametrize("n", LOSSES)
def test_losses_of_ten_classes(n) -> None:
    found = (
        dnc_loss(10, 4, 0.004, n),
        graph.loss(5, 0.004, [0.004] * 4, n, "identity"),
        graph.loss(5, 0.004, [0.004] * 4, n, relaxed=False),
        graph.loss(5, 0.004, [0.004] * 4, n),
    )
    for value, printed in zip(found, LOSSES[n], strict=True):
        assert printed is None or abs(value - printed) < 0.6e-8


@pytest.mark.parametrize("r", RATIOS)
def test_loss_ratios_at_small_decay(r) -> None:
    found = [graph.loss_ratio(r, L, variant) for L in (3, 4, 5) for variant in ("identity", "kneser", "best")]
    assert found == pytest.approx(RATIOS[r], abs=0.51e-4)
    assert [round(graph.loss_ratio(3, L, "identity"), 4) for L in (3, 4, 5)] == [1.0746, 1.0592, 1.0491]
    tiny = 1e-9
    K = graph.classes_of(r)
    ratio = graph.loss(r, tiny, [tiny] * 4) / dnc_loss(K, 4, tiny)
    assert ratio == pytest.approx(graph.loss_ratio(r, 4), rel=1e-5)


@pytest.mark.parametrize(("depth", "least", "printed"), RATIOS_AT_DECAY)
def test_loss_ratios_at_decay_0_004(depth, least, printed) -> None:
    for r, ratio in enumerate(printed, least):
        K = graph.classes_of(r)
        found = graph.loss(r, 0.004, [0.004] * depth, relaxed=False) / dnc_loss(K, depth, 0.004)
        assert found == pytest.approx(ratio, abs=0.51e-4)


def test_numbers_of_other_settings() -> None:
    """K = 15, L = 7; K = 10, L = 3; K = 12 in blocks; and where DNC is zero at decay 0.004."""
    dnc = dnc_loss(15, 7, 0.001)
    assert dnc == pytest.approx(0.059886, abs=0.6e-6)
    lam = [0.001] * 7
    assert graph.loss(6, 0.001, lam) / dnc == pytest.approx(0.6090, abs=0.6e-4)
    assert graph.loss(6, 0.001, lam, variant="best", relaxed=False) / dnc == pytest.approx(0.5882, abs=0.6e-4)
    dnc = dnc_loss(10, 3, 0.01)
    assert graph.loss(5, 0.01, [0.01] * 3) / dnc == pytest.approx(0.916, abs=0.6e-3)
    assert graph.loss(5, 0.01, [0.01] * 3, relaxed=False) / dnc == pytest.approx(0.925, abs=0.6e-3)
    assert graph.loss(5, 0.004, [0.004] * 4, relaxed=False, classes=12) == pytest.approx(0.100827, abs=0.6e-6)
    assert dnc_loss(12, 4, 0.004) == pytest.approx(0.118813, abs=0.6e-6)
    for depth, r in ((4, 11), (5, 10)):
        at_zero = [graph.classes_of(q) * 0.004 > zero_limit(depth) for q in (r - 1, r)]
        assert at_zero == [False, True]


def test_constants() -> None:
    assert [graph.inverse_norm(r, "kneser") for r in (4, 5, 6)] == pytest.approx(
        [6, 6.1111, 9.5833], abs=5e-5
    )
    designs = {r: graph.inverse_trace(graph.design_spectrum(r, graph.best_design(r))) for r in range(4, 9)}
    assert designs == pytest.approx({4: 30.0, 5: 76.389, 6: 162.5, 7: 307.3, 8: 500.9}, abs=0.06)
    kneser = [graph.last_layers(r, "kneser") for r in (4, 5, 6, 7, 8)]
    assert kneser == pytest.approx([36.0, 76.389, 215.6, 528.6, 1135.9], abs=0.05)


@pytest.mark.parametrize("r", [4, 5, 6, 7])
def test_best_design_against_a_search_over_mixtures(r, rng) -> None:
    best = graph.inverse_trace(graph.design_spectrum(r, graph.best_design(r)))
    sizes = range(2, r + 1)
    for weights in rng.dirichlet(np.full(len(sizes), 0.5), 300):
        spectrum = graph.design_spectrum(r, dict(zip(sizes, weights, strict=True)))
        assert graph.inverse_trace(spectrum) >= best


@pytest.mark.parametrize(("r", "design"), [(5, {2: 0.5, 4: 0.5}), (6, {3: 1.0}), (7, {5: 1.0})])
def test_gram_matrix_of_neurons(r, design) -> None:
    B = graph.incidence(r)
    gram = 0.0
    for s, weight in design.items():
        sets = list(combinations(range(r), s))
        neurons = np.array([[1.0 if v in chosen else -1.0 for v in range(r)] for chosen in sets])
        outputs = np.maximum(neurons @ B, 0.0) / np.sqrt(r * len(sets))
        gram = gram + weight * outputs.T @ outputs
    spectrum = graph.design_spectrum(r, design)
    expected = np.sort(np.concatenate([np.full(int(m), value) for value, m in spectrum]))
    assert np.linalg.eigvalsh(gram) == pytest.approx(expected, rel=1e-12)


def brute_force(block, features, weights, n, classes, relaxed) -> float:
    """Least objective over independent scales of all factors, in their logarithms."""
    depth = len(weights)

    def value(logs):
        a, *c, t = np.exp(logs[: depth - 1])
        pair = np.sqrt(n * features * weights[0]) * a * block.nuclear_norm
        middle = sum(rate / 2 * block.rows * x**2 for rate, x in zip(weights[1:-2], c, strict=True))
        before = pair + middle + weights[-2] / 2 * t**2
        s, last = a * np.prod(c) * t, weights[-1]
        if relaxed:
            return before + sum(m * last / (2 * (classes * last + s**2 * lam)) for lam, m in block.spectrum)
        x = np.exp(logs[-1])
        inverse = graph.inverse_trace(block.spectrum)
        fit = block.classes / (2 * classes) * (1 - x) ** 2
        return fit + before + last / 2 * x**2 * inverse / s**2

    start = np.zeros(depth - 1 if relaxed else depth)
    return minimize(value, start, method="BFGS", options={"gtol": 1e-10}).fun


@pytest.mark.parametrize("relaxed", [False, True])
@pytest.mark.parametrize(("r", "depth", "variant"), [(5, 3, "kneser"), (6, 5, "best"), (4, 4, "identity")])
def test_closed_form_against_brute_force_scales(r, depth, variant, relaxed, rng) -> None:
    features, *weights = 10 ** rng.uniform(-4.5, -3, depth + 1)
    block = graph.graph_block(r, variant)
    K = block.classes + 2
    best = graph.relaxed_minimum if relaxed else graph.collapsed_minimum
    found = best(block, features, weights, 3, K)
    assert found.loss == pytest.approx(brute_force(block, features, weights, 3, K, relaxed), rel=1e-9)
    assert (found.gain is None) == relaxed


def test_relaxed_scale_is_the_largest_minimum_of_several() -> None:
    """Eigenvalues 1 and 1e-8: the balance dips between two peaks, and each has a minimum behind it."""
    lam, weights = 2e-4, [2e-4] * 3
    block = graph.Block(10, 5, 1.0, ((1.0, 5), (1e-8, 5)))
    strength = graph.feature_strength(block, lam, weights, 1)
    scales = np.geomspace(1e-3, 1e7, 100_001)
    values = graph.relaxed_loss(scales, block.spectrum, 10, lam, strength, 3)
    minima = scales[1:-1][(values[1:-1] < values[:-2]) & (values[1:-1] < values[2:])]
    assert len(minima) == 2
    found = graph.relaxed_minimum(block, lam, weights, 1, 10)
    assert found.scale == pytest.approx(minima[-1], rel=1e-3)


@pytest.mark.parametrize("depth", [2, 3, 5, 8])
def test_relaxed_scale_exists_up_to_the_largest_balance(depth) -> None:
    """Just below it the scale is beside that of the largest balance, just above it there is none but zero."""
    block = graph.collapsed_block(10)
    scales = np.geomspace(1e-3, 1e3, 100_001)

    def largest(lam):
        balance = graph.relaxed_balance(scales, block.spectrum, 10, lam, depth)
        return balance.max() / graph.feature_strength(block, lam, [lam] * depth, 1), scales[balance.argmax()]

    lam = brentq(lambda lam: largest(lam)[0] - 1, 1e-6, 1.0, xtol=1e-15)
    found = graph.relaxed_minimum(block, lam * (1 - 1e-6), [lam * (1 - 1e-6)] * depth, 1, 10)
    assert found.scale == pytest.approx(largest(lam)[1], rel=1e-2)
    assert graph.relaxed_minimum(block, lam * (1 + 1e-6), [lam * (1 + 1e-6)] * depth, 1, 10).scale == 0


@pytest.mark.parametrize("best", [graph.relaxed_minimum, graph.collapsed_minimum])
def test_share_is_what_each_factor_before_the_last_pays(best) -> None:
    """The decay term of a factor is the derivative of the minimum by the logarithm of its rate."""
    block, features, weights, step = graph.graph_block(5), 3e-4, [2e-4, 5e-4, 4e-4], 1e-5
    share = best(block, features, weights, 3, 10).share

    def minimum(position, factor):
        rates = np.array([features, *weights])
        rates[position] *= factor
        return best(block, rates[0], rates[1:].tolist(), 3, 10).loss

    for position in (0, 1, 2):
        slope = (minimum(position, np.exp(step)) - minimum(position, np.exp(-step))) / (2 * step)
        assert slope == pytest.approx(share / 2, rel=1e-6)


def test_relaxed_output_is_better_unless_all_eigenvalues_agree() -> None:
    arguments = (5, 2e-3, [1e-3, 3e-3, 2e-3, 4e-3], 2)
    for variant in ("kneser", "best"):
        assert graph.loss(*arguments, variant) < graph.loss(*arguments, variant, relaxed=False)
    exact = graph.loss(*arguments, "identity", relaxed=False)
    assert graph.loss(*arguments, "identity") == pytest.approx(exact, rel=1e-14)


def test_strong_decay_leaves_zero() -> None:
    assert graph.loss(5, 1.0, [1.0] * 4) == 0.5
    assert graph.loss(5, 1.0, [1.0] * 4, relaxed=False, classes=11) == 0.5
    # the rest is at zero already where the graph is not
    lam = 0.033
    alone = graph.relaxed_minimum(graph.graph_block(5), lam, [lam] * 4, 1, 11)
    rest = graph.collapsed_minimum(graph.collapsed_block(1), lam, [lam] * 4, 1, 11)
    assert alone.scale > 0
    assert rest.scale == 0
    assert rest.loss == pytest.approx(1 / 22)


def test_blocks_beat_collapse_for_every_number_of_classes() -> None:
    for depth, r in ((3, 5), (4, 4), (6, 4)):
        least = graph.classes_of(r)
        for K in range(least, least + 6):
            lam = 0.3 * zero_limit(depth) / K
            assert graph.loss(r, lam, [lam] * depth, classes=K) < dnc_loss(K, depth, lam)


def test_closed_form_at_50_digits() -> None:
    """The evaluated loss is the formula's at 50 digits, deep and with tiny decay too."""
    for depth, lam in ((3, 1e-3), (12, 1e-7)):
        value = graph.loss(5, lam, [lam] * depth, 2, relaxed=False)
        with mpmath.workdps(50):
            r, L = mpmath.mpf(5), mpmath.mpf(depth)
            last = graph.last_layers(r, "kneser")
            D = graph.product_constant(r, L, last, mpmath) ** (1 / (L + 1))
            strength = D * geometric_decay(mpmath.mpf(lam), [mpmath.mpf(lam)] * depth, mpmath.mpf(2), mpmath)
            exact = objective(gain(strength, depth, mpmath), strength, depth, mpmath)
        assert value == pytest.approx(float(exact), rel=1e-13)


def test_a_thousand_layers() -> None:
    """Products of a thousand norms overflow, their roots do not."""
    L, lam = 1000, 1e-4
    assert graph.loss_ratio(5, L) == pytest.approx(0.5, rel=1e-2)  # r/K
    assert 0 < graph.loss(5, lam, [lam] * L) < graph.loss(5, lam, [lam] * L, relaxed=False)
    assert graph.loss(5, lam, [lam] * L, relaxed=False) < dnc_loss(10, L, lam)


def test_ranks_are_of_order_root_of_classes() -> None:
    for r in range(3, 40):
        K = graph.classes_of(r)
        assert graph.vertices_of(K) == r == graph.vertices_formula(K)
        assert np.sqrt(2 * K) < r < np.sqrt(2 * K) + 1
    assert [K for K in range(3, 30) if graph.vertices_of(K)] == [3, 6, 10, 15, 21, 28]


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: graph.loss(5, 1e-3, [1e-3] * 2), "loss.weights is .*at least 3 layers"),
        (lambda: graph.loss(2, 1e-3, [1e-3] * 3), "loss.vertices is 2"),
        (lambda: graph.loss(3, 1e-3, [1e-3] * 3), "at least 6 for variant 'kneser'"),
        (lambda: graph.loss(5, 1e-3, [1e-3] * 3, classes=9), "loss.classes is 9; allowed: .* >= 10"),
        (lambda: graph.loss(5, 1e-3, [1e-3] * 3, variant="petersen"), "variant is 'petersen'"),
        (lambda: graph.loss(5, 0.0, [1e-3] * 3), "loss.features, loss.weights is .*finite numbers > 0"),
        (lambda: graph.loss(5, 1e-3, [1e-3] * 3, 0), "loss.samples is 0"),
        (lambda: graph.best_design(3), "best_design.r is 3"),
        (lambda: graph.incidence(1), "incidence.r is 1"),
    ],
)
def test_refused_in_one_sentence(call, sentence) -> None:
    with pytest.raises(InvalidProblemError, match=sentence):
        call()
