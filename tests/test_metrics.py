"""The metrics against the public code's values and slow loops; their conventions, invariances and batching."""

import json
from itertools import combinations, permutations
from math import exp, log, prod, sqrt
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ufm
from ufm import metrics
from ufm.errors import InvalidProblemError
from ufm.metrics import inputs
from ufm.metrics.catalogue import TRANSFORMATIONS, Metric

DATA = Path(__file__).parent / "data"
CASES = json.loads((DATA / "metrics_reference.json").read_text())
CATALOGUE = {metric.call: metric for metric in metrics.catalogue()}
SIZES = ("K", "p", "n")


def arrays(case: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    with np.load(DATA / "metrics_reference.npz") as stored:
        return stored[f"W{case}"], stored[f"H{case}"], stored[f"y{case}"]


def drawn(
    seed: int, K: int = 5, d: int = 7, sizes: tuple[int, ...] = (3, 1, 4, 2, 3)
) -> dict[str, np.ndarray]:
    """A random state with classes of unequal sizes in mixed order, and what a metric may ask for by name."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(K), sizes))
    means = rng.standard_normal((d, K))
    H = means[:, labels] + 0.5 * rng.standard_normal((d, labels.size))
    W = means.T + 0.7 * rng.standard_normal((K, d))
    return {"W": W, "H": H, "labels": labels, "b": rng.standard_normal(K), "A": W}


def value(metric: Metric, state: dict[str, np.ndarray]) -> np.ndarray:
    return metric(*(state[name] for name in metric.arguments))


# ------------------------------------------------------------------------------------ published values


def guarded(name: str, W: np.ndarray, H: np.ndarray, labels: np.ndarray) -> float:
    """Our metric, with what the public code adds to its denominators."""
    M = metrics.class_means(H, labels)
    K = M.shape[1]
    if name == "nc1_quotient":
        between = (M**2).sum() / K
        return metrics.nc1(H, labels, "quotient") * between / (between + 1e-8)
    rows = M.T if name == "nc2a_abs" else W
    norms = np.sqrt((rows**2).sum(axis=1))
    short = rows * (norms / (norms + 1e-9))[:, None]
    cosines = short @ short.T / np.outer(norms, norms)
    return np.abs(cosines + 1 / (K - 1))[~np.eye(K, dtype=bool)].mean()


def found(case: int) -> dict[str, float]:
    """Every key of the reference file, guards included."""
    W, H, y = arrays(case)
    return {
        "nc1": metrics.nc1(H, y),
        "nc1_quotient": guarded("nc1_quotient", W, H, y),
        "cdnv": metrics.cdnv(H, y),
        "nc2n_ddof1": metrics.nc2n(H, y),
        "nc2a_abs": guarded("nc2a_abs", W, H, y),
        "nc2": metrics.nc2(H, y),
        "nc2w": metrics.nc2w(W),
        "nc2wn_ddof1": metrics.nc2wn(W),
        "nc2wa_abs": guarded("nc2wa_abs", W, H, y),
        "nc2m": metrics.nc2m(W, H, y),
        "nc3": metrics.nc3(W, H, y),
        "row_sum_norm": metrics.nc0(W, "norm"),
        "nc4": metrics.nc4(W, H, y),
    }


@pytest.mark.parametrize("case", range(len(CASES)))
def test_every_value_of_the_public_code(case: int) -> None:
    values = found(case)
    assert set(values) == set(CASES[case]) - set(SIZES)
    for name, ours in values.items():
        assert abs(ours - CASES[case][name]) <= 1e-13, name  # the largest deviation is 6e-15


@pytest.mark.parametrize("case", range(len(CASES)))
def test_without_the_guards_values_differ_by_the_guards_alone(case: int) -> None:
    W, H, y = arrays(case)
    unguarded = {
        "nc1_quotient": metrics.nc1(H, y, "quotient"), "nc2a_abs": metrics.nc2a(H, y), "nc2wa_abs": metrics.nc2wa(W),
    }  # fmt: skip
    for name, ours in unguarded.items():
        assert 1e-12 < abs(ours - CASES[case][name]) < 2e-8, name


@pytest.mark.parametrize("case", range(len(CASES)))
def test_paper_convention_is_what_is_printed(case: int) -> None:
    W, H, y = arrays(case)
    K, p = W.shape
    of_H = {"nc2": 1 / K**2, "nc2n": sqrt((K - 1) / K)}
    of_W = {"nc2w": 1 / K**2, "nc2wn": sqrt((K - 1) / K)}
    for name, factor in of_H.items():
        metric = getattr(metrics, name)
        assert metric(H, y, "paper") == pytest.approx(factor * metric(H, y), rel=1e-12)
    for name, factor in of_W.items():
        metric = getattr(metrics, name)
        assert metric(W, "paper") == pytest.approx(factor * metric(W), rel=1e-12)
    for name, factor in {"nc2m": 1 / K**2, "nc3": 1 / (K * p)}.items():
        metric = getattr(metrics, name)
        assert metric(W, H, y, "paper") == pytest.approx(factor * metric(W, H, y), rel=1e-12)
    # the mean without the absolute value is sum of cosines plus 1, and centred rows of equal norm give 0
    for rows, ours in (
        (metrics.class_means(H, y).T, metrics.nc2a(H, y, "paper")),
        (W, metrics.nc2wa(W, "paper")),
    ):
        directions = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        signed = ((directions.sum(axis=0) ** 2).sum() - K) / (K * (K - 1)) + 1 / (K - 1)
        assert ours == pytest.approx(signed, rel=1e-11)


def test_four_normalisations_of_nc0() -> None:
    W, _, _ = arrays(1)
    K, p = W.shape
    norm = CASES[1]["row_sum_norm"]
    assert metrics.nc0(W) == pytest.approx(norm**2 / K, rel=1e-13)
    assert metrics.nc0(W, "norm_per_width") == pytest.approx(norm / p, rel=1e-13)
    assert metrics.nc0(W, "relative") == pytest.approx(norm / (p * np.sqrt((W**2).sum())), rel=1e-13)


# -------------------------------------------------------------- the definitions again, slowly and by hand


def slowly(W, H, labels, b) -> dict[str, float]:
    """Definitions in plain Python over lists; only the pseudoinverse is NumPy's."""
    W, columns, labels = W.tolist(), H.T.tolist(), labels.tolist()
    K, p, N = len(W), len(W[0]), len(columns)
    dims, ks = range(p), range(K)
    inner = lambda a, c: sum(x * y for x, y in zip(a, c, strict=True))  # noqa: E731
    minus = lambda a, c: [x - y for x, y in zip(a, c, strict=True)]  # noqa: E731
    members = [[h for h, y in zip(columns, labels, strict=True) if y == k] for k in ks]
    mu = [[sum(h[i] for h in members[k]) / len(members[k]) for i in dims] for k in ks]
    centre = [sum(mu[k][i] for k in ks) / K for i in dims]
    overall = [sum(h[i] for h in columns) / N for i in dims]
    within = [minus(h, mu[y]) for h, y in zip(columns, labels, strict=True)]
    variance = [
        sum(inner(minus(h, mu[k]), minus(h, mu[k])) for h in members[k]) / len(members[k]) for k in ks
    ]

    def ratio(centre):
        M = [minus(mu[k], centre) for k in ks]
        between = [[sum(M[k][i] * M[k][j] for k in ks) / K for j in dims] for i in dims]
        spread = [[sum(e[i] * e[j] for e in within) / N for j in dims] for i in dims]
        return np.trace(np.array(spread) @ np.linalg.pinv(between, rcond=1e-10)) / K

    def distance(G):
        size = sqrt(sum(x * x for row in G for x in row))
        ideal = lambda i, j: ((i == j) - 1 / K) / sqrt(K - 1)  # noqa: E731
        return sqrt(sum((G[i][j] / size - ideal(i, j)) ** 2 for i in ks for j in ks))

    M = [minus(mu[k], centre) for k in ks]
    norms = [sqrt(inner(m, m)) for m in M]
    mean = sum(norms) / K
    size_W, size_M = (sqrt(sum(inner(r, r) for r in rows)) for rows in (W, M))

    def first_largest(numbers):
        return max(range(len(numbers)), key=lambda k: (numbers[k], -k))

    def agreement(b):
        hits = 0
        for h in columns:
            chosen = first_largest([inner(W[k], h) + b[k] for k in ks])
            hits += chosen == first_largest([-inner(minus(h, mu[k]), minus(h, mu[k])) for k in ks])
        return hits / N

    cosines = [inner(M[j], M[k]) / norms[j] / norms[k] for j, k in permutations(ks, 2)]

    def mean_cosine(j, k):
        pairs = [(a, c) for a in members[j] for c in members[k]]
        return sum(inner(a, c) / sqrt(inner(a, a) * inner(c, c)) for a, c in pairs) / len(pairs)

    within_class = [mean_cosine(k, k) for k in ks]
    between = [mean_cosine(j, k) for j, k in permutations(ks, 2)]
    return {
        "nc1(H, labels, form='pinv')": ratio(centre),
        "nc1(H, labels, form='quotient')": (sum(inner(e, e) for e in within) / N) / (sum(n * n for n in norms) / K),
        "cdnv(H, labels)": sum(
            (variance[j] + variance[k]) / 2 / inner(minus(mu[j], mu[k]), minus(mu[j], mu[k]))
            for j, k in combinations(ks, 2)
        ) / (K * (K - 1) / 2),
        "intra_class_cosine(H, labels, over='worst')": min(within_class),
        "intra_class_cosine(H, labels, over='mean')": sum(within_class) / K,
        "inter_class_cosine(H, labels, over='worst')": max(between),
        "inter_class_cosine(H, labels, over='mean')": sum(between) / len(between),
        "nc2(H, labels)": distance([[inner(r, s) for s in M] for r in M]),
        "nc2n(H, labels)": sqrt(sum((x - mean) ** 2 for x in norms) / (K - 1)) / mean,
        "nc2a(H, labels)": sum(abs(c + 1 / (K - 1)) for c in cosines) / (K * (K - 1)),
        "nc2w(W)": distance([[inner(r, s) for s in W] for r in W]),
        "nc2m(W, H, labels)": distance([[inner(r, s) for s in M] for r in W]),
        "nc3(W, H, labels)": sqrt(
            sum((W[k][i] / size_W - M[k][i] / size_M) ** 2 for k in ks for i in dims)
        ),
        "nc4(W, H, labels)": agreement([0.0] * K),
        "nc4(W, H, labels, b)": agreement(b.tolist()),
        "zhu_nc1(H, labels)": ratio(overall),
        "zhu_nc3(W, H, labels)": distance([[inner(r, minus(m, overall)) for m in mu] for r in W]),
        "zhu_nc4(W, H, labels, b)": sqrt(sum((inner(W[k], overall) + b[k]) ** 2 for k in ks)),
    }  # fmt: skip


@pytest.mark.parametrize(("K", "d", "sizes"), [(5, 7, (3, 1, 4, 2, 3)), (4, 2, (2, 5, 3, 2)), (2, 3, (1, 6))])
def test_definitions_by_slow_loops_with_unequal_classes(K, d, sizes) -> None:
    state = drawn(K, K, d, sizes)
    expected = slowly(state["W"], state["H"], state["labels"], state["b"])
    for call, slow in expected.items():
        assert value(CATALOGUE[call], state) == pytest.approx(slow, rel=1e-11, abs=1e-13), call


def test_zhu_and_zhao_differ_for_unequal_classes_only() -> None:
    for sizes, equal in (((3, 3, 3, 3, 3), True), ((3, 1, 4, 2, 3), False)):
        W, H, y = (drawn(0, sizes=sizes)[name] for name in ("W", "H", "labels"))
        assert (abs(metrics.zhu_nc1(H, y) - metrics.nc1(H, y)) < 1e-13) == equal
        assert (abs(metrics.zhu_nc3(W, H, y) - metrics.nc2m(W, H, y)) < 1e-13) == equal
        assert metrics.zhu_nc2(W) == metrics.nc2w(W)


# ----------------------------------------------------------------------------------------- invariances


def transformed(name: str, state: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    W, H, y, b = (state[key] for key in ("W", "H", "labels", "b"))
    K, d = W.shape
    if name == "rotation":
        Q = np.linalg.qr(rng.standard_normal((d, d)))[0]
        W, H = W @ Q.T, Q @ H
    elif name == "class order":
        order = rng.permutation(K)  # class k is called order[k] from now on
        W, b, y = W[np.argsort(order)], b[np.argsort(order)], order[y]
    elif name == "scale of H":
        H = np.exp(rng.uniform(0.5, 2.0)) * H
    elif name == "scale of W":
        W = np.exp(rng.uniform(0.5, 2.0)) * W
    elif name == "shift of H":
        H = H + 3.0 * rng.standard_normal((d, 1))
    else:
        W = W + 3.0 * rng.standard_normal((1, d))
    return {"W": W, "H": H, "labels": y, "b": b, "A": W}


@pytest.mark.parametrize("call", CATALOGUE)
@given(seed=st.integers(0, 10**6), K=st.integers(2, 6), d=st.integers(1, 7), more=st.integers(0, 3))
def test_what_the_catalogue_says_leaves_a_metric_unchanged(call, seed, K, d, more) -> None:
    metric, rng = CATALOGUE[call], np.random.default_rng(seed)
    state = drawn(seed, K, d, tuple(rng.integers(1, 2 + more, K)))
    before = value(metric, state)
    for name in metric.unchanged_by:
        after = value(metric, transformed(name, state, rng))
        # round-off of the features, seen through the smallest distance of two means
        assert after == pytest.approx(before, rel=1e-10, abs=1e-13, nan_ok=True), name


def moving(metric: Metric) -> list[str]:
    """Transformations that act on what a metric takes, and are not said to leave it unchanged: they change it."""
    acting = {"rotation", "class order"}
    acting |= {"scale of H", "shift of H"} if "H" in metric.arguments else set()
    acting |= {"scale of W", "shift of W"} if {"W", "A"} & set(metric.arguments) else set()
    assert set(metric.unchanged_by) <= acting
    return sorted(acting - set(metric.unchanged_by))


@pytest.mark.parametrize(
    ("call", "name"), [(call, name) for call, metric in CATALOGUE.items() for name in moving(metric)]
)
def test_what_the_catalogue_does_not_say_changes_it(call, name) -> None:
    metric = CATALOGUE[call]
    change = 0.0
    for seed in range(3):
        state = drawn(seed)
        if call == "rank(A)":  # rows that add to 0 have rank K - 1, until they are shifted
            state["A"] = state["A"] - state["A"].mean(axis=0)
            state["W"] = state["A"]
        before, after = (
            np.asarray(value(metric, s))
            for s in (state, transformed(name, state, np.random.default_rng(seed)))
        )
        change = max(change, float(np.abs(after / before - 1).max()))
    assert change > 0.01


def test_class_order_leaves_nc4_unchanged_but_for_ties() -> None:
    H, y = np.array([[0.0, 1.0, 2.0, 9.0]]), np.array([0, 0, 0, 1])
    for bias in (None, [2.0, 2.0]):  # two equal logits for every sample: it goes to the class of lower number
        assert metrics.nc4(np.zeros((2, 1)), H, y, bias) == 0.75
        assert metrics.nc4(np.zeros((2, 1)), H, 1 - y, bias) == 0.25
    rows = [metric for metric in CATALOGUE.values() if metric.function is metrics.nc4]
    assert len(rows) == 2
    assert all("but for ties" in metric.convention for metric in rows)


# ------------------------------------------------------------------------- batches, blocks, trajectories


def stacked(count: int) -> dict[str, np.ndarray]:
    states = [drawn(seed) for seed in range(count)]
    several = {name: np.stack([state[name] for state in states]) for name in ("W", "H", "b", "A")}
    for i in range(count):  # one order of samples for all
        several["H"][i] = states[i]["H"][:, np.argsort(states[i]["labels"], kind="stable")]
    return {**several, "labels": np.sort(states[0]["labels"])}


@pytest.mark.parametrize("block", [1, 250, 2**18])
@pytest.mark.parametrize("call", CATALOGUE)
def test_a_batch_is_a_loop_whatever_the_blocks(call, block, monkeypatch) -> None:
    metric, many = CATALOGUE[call], stacked(6)
    alone = [value(metric, {n: A if n == "labels" else A[i] for n, A in many.items()}) for i in range(6)]
    monkeypatch.setattr(inputs, "BLOCK", block)
    assert value(metric, many) == pytest.approx(np.array(alone), rel=1e-12, abs=1e-14)
    shaped = {n: A if n == "labels" else A.reshape(3, 2, *A.shape[1:]) for n, A in many.items()}
    assert value(metric, shaped).shape[:2] == (3, 2)
    assert value(metric, shaped).reshape(6, -1) == pytest.approx(
        np.array(alone).reshape(6, -1), rel=1e-12, abs=1e-14
    )


@pytest.mark.parametrize("call", [call for call in CATALOGUE if call != "spectrum(A)"])
def test_one_state_gives_a_number(call) -> None:
    assert type(value(CATALOGUE[call], drawn(0))) is np.float64


def largest_matrix(metric: Metric, K: int, d: int, N: int) -> int:
    """Entries of the largest matrix that is made or read for one state."""
    if metric.function is metrics.nc4:
        return max(K * N, d * N, K * d)  # logits
    of_pairs = metric.function.__name__.startswith(("nc2", "inter")) or metric.call.startswith(
        ("zhu_nc2", "zhu_nc3")
    )
    read = {"W": K * d, "A": K * d, "H": d * N}
    return max(K * K if of_pairs else 0, *(read[name] for name in metric.arguments if name in read))


@pytest.mark.parametrize("further", [(), (3,)])
@pytest.mark.parametrize("call", CATALOGUE)
def test_blocks_count_the_largest_matrix_and_all_further_axes(call, further, monkeypatch) -> None:
    metric, K, d, sizes = CATALOGUE[call], 5, 2, (2, 1, 1, 1, 1)
    state = drawn(0, K, d, sizes)
    many = {n: A if n == "labels" else np.broadcast_to(A, (4, *further, *A.shape)) for n, A in state.items()}
    asked = []
    original = inputs._float64

    def watched(source, lead, records=slice(None)):
        asked.append(records)
        return original(source, lead, records)

    monkeypatch.setattr(inputs, "_float64", watched)
    two_records = 2 * prod(further) * largest_matrix(metric, K, d, sum(sizes))
    for block, length in ((two_records, 2), (two_records - 1, 1)):
        asked.clear()
        monkeypatch.setattr(inputs, "BLOCK", block)
        value(metric, many)
        assert {(s.start, s.stop) for s in asked} == {(i, i + length) for i in range(0, 4, length)}


@pytest.mark.parametrize("block", [1, 2**18])
def test_leading_axes_broadcast(block, monkeypatch) -> None:
    monkeypatch.setattr(inputs, "BLOCK", block)
    many, one = stacked(4), drawn(9)
    y = many["labels"]
    for W, H in ((many["W"], many["H"][0]), (many["W"][0], many["H"]), (many["W"], many["H"][:1])):
        pairs = np.broadcast_to(W, (4, 5, 7)), np.broadcast_to(H, (4, 7, 13))
        expected = [metrics.nc3(pairs[0][i], pairs[1][i], y) for i in range(4)]
        assert metrics.nc3(W, H, y) == pytest.approx(expected, rel=1e-13)
    grid = metrics.nc4(many["W"][:, None], many["H"][None], y, one["b"])
    assert grid.shape == (4, 4)
    assert grid[1, 2] == metrics.nc4(many["W"][1], many["H"][2], y, one["b"])
    assert metrics.nc2(many["H"][:0], y).shape == (0,)
    with pytest.raises(InvalidProblemError, match="leading axes that broadcast"):
        metrics.nc3(many["W"][:3], many["H"], y)


DEEP = ufm.DUFM(3, [4, 3, 5], 3, [2, 3, 1], activation="relu", loss="ce", bias=True)


@pytest.fixture(scope="module")
def run() -> ufm.Trajectory:
    return ufm.simulate(DEEP, ufm.GD(0.1), steps=6, init=ufm.Gaussian(0.7), record=ufm.Every(2))


def test_features_of_a_layer_are_its_input_after_the_activation(run) -> None:
    first, second = run["H"], np.maximum(run["W1"] @ run["H"], 0.0)
    third = np.maximum(run["W2"] @ second, 0.0)
    assert np.array_equal(run.features(1), first)
    assert np.array_equal(run.features(2), second)
    assert np.array_equal(run.features(3), third)
    assert np.array_equal(run.features(), third)
    assert np.array_equal(run.features(2, slice(1, 3)), second[1:3])
    assert run.logits() == pytest.approx(run["W3"] @ third + run["b"][..., None], rel=1e-14)


@pytest.mark.parametrize("layer", [None, 1, 2, 3])
@pytest.mark.parametrize("call", CATALOGUE)
def test_a_trajectory_stands_for_the_arrays_of_a_layer(call, layer, run, monkeypatch) -> None:
    metric = CATALOGUE[call]
    l = layer or DEEP.depth  # noqa: E741
    state = {"W": run[f"W{l}"], "A": run[f"W{l}"], "H": run.features(l), "labels": DEEP.labels, "b": run["b"]}
    if l < 3:
        state["b"] = np.zeros((4, 3))
    monkeypatch.setattr(inputs, "BLOCK", 40)
    options = {} if layer is None else {"layer": layer}
    of_run = lambda: metric.function(run, **dict(metric.options), **options)  # noqa: E731
    if {"W", "H"} <= set(metric.arguments) and state["W"].shape[1] != 3:
        with pytest.raises(InvalidProblemError, match="classes x width of H"):
            of_run()
        return
    if call == "nc4(W, H, labels)":
        return  # the model's bias is used: the row with b
    assert len(of_run()) == 4
    assert of_run() == pytest.approx(value(metric, state), rel=1e-14, abs=1e-16, nan_ok=True)


def test_spectra_of_features_and_means(run) -> None:
    assert np.array_equal(
        metrics.spectrum(run, "features", layer=2), np.linalg.svd(run.features(2), compute_uv=False)
    )
    means = metrics.class_means(run, layer=2)
    assert means.shape == (4, 3, 3)
    assert np.array_equal(metrics.spectrum(run, "means", layer=2), np.linalg.svd(means, compute_uv=False))
    assert np.array_equal(metrics.effective_rank(run, layer=1), metrics.effective_rank(run["W1"]))


def test_only_a_block_of_records_of_a_deep_run_is_in_memory(run, monkeypatch) -> None:
    asked = []
    original = type(run).features

    def watched(self, layer=None, records=slice(None)):
        asked.append(records)
        return original(self, layer, records)

    monkeypatch.setattr(type(run), "features", watched)
    monkeypatch.setattr(inputs, "BLOCK", 60)  # two records of 5 x 6
    assert metrics.nc1(run).shape == (4,)
    assert asked == [slice(0, 2), slice(2, 4)]


# -------------------------------------------------------------------------------------- degenerate states


def test_a_simplex_scores_zero() -> None:
    K, n = 5, 3
    centred = np.eye(K) - 1 / K
    labels = np.repeat(np.arange(K), n)
    H = 3.0 * centred[:, labels]
    for metric in (metrics.nc1, metrics.cdnv, metrics.nc2, metrics.nc2n, metrics.nc2a):
        assert metric(H, labels) < 1e-14
    for metric in (metrics.nc2w, metrics.nc2wn, metrics.nc2wa):
        assert metric(centred) < 1e-14
    for metric in (metrics.nc2m, metrics.nc3):
        assert metric(centred, H, labels) < 1e-14
    assert metrics.nc4(centred, H, labels) == 1.0


@pytest.mark.parametrize("K", [2, 3, 10])
def test_collinear_means_are_farthest_from_a_simplex(K) -> None:
    collinear = np.outer([3.0, 4.0], np.arange(K))
    assert metrics.nc2(collinear, np.arange(K)) == pytest.approx(
        sqrt(2 - 2 / sqrt(K - 1)), rel=1e-13, abs=1e-15
    )
    assert metrics.nc2w(np.ones((K, 2))) == pytest.approx(sqrt(2), rel=1e-13)


@pytest.mark.parametrize("constant", [0.0, 0.1, -7.3])
@pytest.mark.parametrize("sizes", [(3, 3, 3), (3, 1, 2)])
def test_where_all_features_coincide_there_is_nothing_to_compare(constant, sizes) -> None:
    labels = np.repeat(np.arange(3), sizes)
    H, W = np.full((4, labels.size), constant) * np.arange(1, 5)[:, None], np.ones((3, 4))
    assert (metrics.class_means(H, labels) == 0).all()
    assert metrics.rank(metrics.class_means(H, labels)) == 0
    of_H = (metrics.nc1, metrics.cdnv, metrics.nc2, metrics.nc2n, metrics.nc2a, metrics.zhu_nc1)
    assert all(np.isnan(metric(H, labels)) for metric in of_H)
    assert np.isnan(metrics.nc1(H, labels, "quotient"))
    assert all(np.isnan(metric(W, H, labels)) for metric in (metrics.nc2m, metrics.nc3, metrics.zhu_nc3))


def test_means_that_coincide_exactly_though_features_spread() -> None:
    points = np.random.default_rng(0).standard_normal((7, 4))
    H, labels = np.tile(points, 6), np.repeat(np.arange(6), 4)
    of_H = (metrics.nc1, metrics.nc2, metrics.nc2n, metrics.nc2a, metrics.zhu_nc1)
    assert all(np.isnan(metric(H, labels)) for metric in of_H)
    assert np.isnan(metrics.nc1(H, labels, "quotient"))
    assert metrics.cdnv(H, labels) == np.inf


def test_at_zero_weights() -> None:
    W, (_, H, y) = np.zeros((4, 6)), arrays(0)
    assert [metrics.nc0(W, name) for name in ("alpha", "norm", "norm_per_width")] == [0, 0, 0]
    assert np.isnan(metrics.nc0(W, "relative"))
    assert all(np.isnan(metric(W)) for metric in (metrics.nc2w, metrics.nc2wn, metrics.nc2wa))
    assert np.isnan(metrics.nc2m(W, H, y))
    assert np.isnan(metrics.nc3(W, H, y))
    assert (metrics.spectrum(W) == 0).all()
    assert metrics.rank(W) == 0
    assert np.isnan(metrics.effective_rank(W))
    assert np.isnan(metrics.stable_rank(W))
    assert metrics.nc4(W, H, y) == metrics.nc4(W, H, y, b=[1, 0, 0, 0])  # ties go to class 0


def test_one_sample_per_class_and_two_classes() -> None:
    rng = np.random.default_rng(0)
    H, y = rng.standard_normal((3, 6)), np.arange(6)  # and fewer dimensions than K - 1
    assert metrics.nc1(H, y) == metrics.nc1(H, y, "quotient") == metrics.cdnv(H, y) == 0
    H, y = rng.standard_normal((5, 9)), np.array([0, 1, 1, 0, 1, 1, 1, 0, 1])
    for metric in (metrics.nc2, metrics.nc2n, metrics.nc2a):
        assert abs(metric(H, y)) < 1e-15


def test_one_class_has_no_simplex() -> None:
    H, y = np.ones((2, 3)), np.zeros(3, int)
    assert all(
        np.isnan(m(H, y)) for m in (metrics.nc1, metrics.cdnv, metrics.nc2, metrics.nc2n, metrics.nc2a)
    )
    assert all(np.isnan(m(np.ones((1, 2)))) for m in (metrics.nc2w, metrics.nc2wn, metrics.nc2wa))


def test_merged_classes() -> None:
    y = np.repeat(np.arange(4), 2)
    points = np.array([[1.0, 1.0, -1.0, -1.0], [0.0, 0.0, 0.0, 0.0]])
    H = points[:, y]
    assert np.isnan(metrics.cdnv(H, y))  # 0/0 for the merged pairs
    spread = H + np.array([0.1, -0.1] * 4)
    assert metrics.cdnv(spread, y) == np.inf
    assert metrics.nc1(spread, y) == pytest.approx(
        0.01 / 4 / 1.0, rel=1e-12
    )  # along the one direction of Sigma_B
    assert metrics.rank(metrics.class_means(spread, y)) == 1


def test_the_cutoff_of_the_pseudoinverse() -> None:
    """Sigma_B has singular values 1 and 1e-6 times a constant; the second counts unless it is cut off."""
    y = np.repeat(np.arange(4), 2)
    points = np.array([[1.0, 1.0, -1.0, -1.0], [1e-3, -1e-3, 1e-3, -1e-3]])
    H = points[:, y] + np.array([0.1, -0.1] * 4)
    assert metrics.nc1(H, y) == pytest.approx((0.01 + 0.01 / 1e-6) / 4, rel=1e-11)
    assert metrics.nc1(H, y, cutoff=1.01e-6) == pytest.approx(0.01 / 4, rel=1e-11)
    assert metrics.nc1(H, y, cutoff=0.99e-6) == metrics.nc1(H, y, cutoff=0) == metrics.nc1(H, y)
    # without a cut-off the K - 1 directions that centred means can have, and no direction of round-off
    state = drawn(0)
    without = metrics.nc1(state["H"], state["labels"], cutoff=0)
    assert without == pytest.approx(metrics.nc1(state["H"], state["labels"]), rel=1e-12)
    # a difference of means of round-off size is no direction of Sigma_B, unless nothing is cut off
    H[1] += np.array([1e-13] * 2 + [0.0] * 6) - np.repeat(points[1], 2)
    assert metrics.nc1(H, y) == pytest.approx(0.01 / 4, rel=1e-11)
    assert metrics.nc1(H, y, cutoff=0) > 1e20
    # and one that is exactly 0 is none in any case
    H[1] = 0.0
    assert metrics.nc1(H, y, cutoff=0) == pytest.approx(0.01 / 4, rel=1e-11)


@pytest.mark.parametrize("entry", [np.inf, -np.inf, np.nan, 1e308])
@pytest.mark.parametrize("call", CATALOGUE)
def test_diverged_records_are_silent_and_touch_no_other(call, entry) -> None:
    metric, many = CATALOGUE[call], stacked(3)
    healthy = value(metric, many)
    for name in ("W", "H", "b"):
        many[name][1].flat[0] = entry
    many["A"] = many["W"]
    values = value(metric, many)
    assert np.array_equal(values[[0, 2]], healthy[[0, 2]])
    if np.isnan(entry):
        assert np.isnan(values[1]).all()
    if np.isinf(entry):
        assert not np.isfinite(values[1]).any()


RATIOS = [call for call, metric in CATALOGUE.items() if "b" not in metric.arguments]


@pytest.mark.parametrize("size", [1e-250, 1e-160, 1e160, 1e250])
@pytest.mark.parametrize("call", RATIOS)
def test_ratios_are_right_where_squares_would_overflow(call, size) -> None:
    metric, state = CATALOGUE[call], drawn(4)
    before = value(metric, state)
    for name in ("H", "W"):
        if f"scale of {name}" in metric.unchanged_by:
            grown = {**state, name: size * state[name]}
            grown["A"] = grown["W"]
            assert value(metric, grown) == pytest.approx(before, rel=1e-12)
    assert metrics.nc0(size * state["W"], "norm") == pytest.approx(
        size * metrics.nc0(state["W"], "norm"), rel=1e-13
    )


@pytest.mark.parametrize("call", [call for call in RATIOS if "H" in CATALOGUE[call].arguments])
def test_ratios_are_right_where_differences_would_overflow(call) -> None:
    metric, state = CATALOGUE[call], drawn(4)
    state["H"] = 1.7 * np.sign(state["H"]) * np.abs(np.cos(state["H"])) ** 0.1
    assert np.ptp(state["H"]) > 3.3
    grown = {**state, "H": np.ldexp(state["H"], 1023)}
    assert value(metric, grown) == pytest.approx(value(metric, state), rel=1e-12)


def test_ratios_of_weights_below_the_normal_numbers() -> None:
    W = np.round(1000 * drawn(4)["W"])  # whole numbers, so that no digit is lost
    for metric in (metrics.nc2w, metrics.nc2wn, metrics.nc2wa):
        assert metric(np.ldexp(W, -1074)) == pytest.approx(metric(W), rel=1e-12)


def test_angles_of_rows_of_very_different_sizes() -> None:
    rows = np.array([[1.0, 0.0], [0.0, 1e-200], [1e-170, 1e-170]])
    assert metrics.nc2wa(rows) == pytest.approx((3 / 2 + sqrt(2)) / 3, rel=1e-14)  # angles 90, 45, 45 degrees


# ------------------------------------------------------------------------------------------- single metrics


def test_class_means_are_centred_over_classes_whatever_their_sizes() -> None:
    state = drawn(0)
    H, y = state["H"], state["labels"]
    raw = np.stack([H[:, y == k].mean(axis=1) for k in range(5)], axis=1)
    assert metrics.class_means(H, y, centred=False) == pytest.approx(raw, rel=1e-13)
    assert metrics.class_means(H, y) == pytest.approx(raw - raw.mean(axis=1, keepdims=True), abs=1e-14)
    assert np.abs(metrics.class_means(H, y).sum(axis=1)).max() < 1e-14


@pytest.mark.parametrize("seed", range(5))
def test_a_common_offset_adds_nothing_to_the_rank_of_the_means(seed) -> None:
    state = drawn(seed)
    for offset in (0.0, 100.0, 1e6):
        means = metrics.class_means(state["H"] + offset, state["labels"])
        assert metrics.rank(means) == 4
        assert means == pytest.approx(
            metrics.class_means(state["H"], state["labels"]), abs=1e-15 * (10 + 3 * offset)
        )


LOGIT_SIZES = [(-660, -660), (-1000, -1000), (-990, 490), (-990, 990), (250, 250), (830, 960)]


@pytest.mark.parametrize(("size_W", "size_H"), LOGIT_SIZES)
def test_nc4_where_logits_would_over_or_underflow(size_W, size_H) -> None:
    """Sizes are exponents of two; a bias far below the logits is as none, one far above as if alone."""
    ones = np.eye(3)
    assert metrics.nc4(np.ldexp(ones, size_W), np.ldexp(ones, size_H), np.arange(3)) == 1.0
    state = drawn(7)
    W, H, y, b = (state[name] for name in ("W", "H", "labels", "b"))
    without, among, alone = metrics.nc4(W, H, y), metrics.nc4(W, H, y, b), metrics.nc4(0 * W, H, y, b)
    assert len({without, among, alone}) == 3
    W, H = np.ldexp(W, size_W), np.ldexp(H, size_H)
    assert metrics.nc4(W, H, y) == without
    for size in (-1000, -500, 0, 500, 1000):
        excess = size - size_W - size_H
        expected = among if excess == 0 else alone if excess > 0 else without
        assert metrics.nc4(W, H, y, np.ldexp(b, size)) == expected
        assert metrics.nc4(0 * W, H, y, np.ldexp(b, size)) == alone


def test_nc4_takes_every_sample_at_its_own_size() -> None:
    assert metrics.nc4(np.eye(2), np.diag([1e200, 1e-200]), np.arange(2)) == 1.0


def test_nc4_uses_the_bias_and_sends_ties_to_the_lower_class() -> None:
    W, y = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), np.arange(3)
    H = np.array([[1.0, 2.0, 0.0], [0.0, 0.0, 5.0]])
    assert metrics.nc4(W, H, y) == pytest.approx(2 / 3)  # rows 0 and 1 tie: sample 1 goes to class 0
    assert metrics.nc4(W, H, y, b=[0.0, 1.0, 0.0]) == pytest.approx(2 / 3)  # and sample 0 to class 1
    assert metrics.nc4(W, H, y, b=[9.0, 0.0, 0.0]) == pytest.approx(1 / 3)
    same = np.ones((2, 3))
    assert metrics.nc4(W, same, y) == 1.0  # all tie on both sides


def test_the_tolerance_of_the_rank_grows_with_the_longer_side() -> None:
    A = np.zeros((4, 400))
    A[0, 0], A[1, 1] = 1.0, 50 * 2.0**-52
    assert metrics.rank(A) == metrics.rank(A.T) == np.linalg.matrix_rank(A) == 1
    assert metrics.rank(A[:, :4]) == 2


def test_ranks() -> None:
    U, V = (np.linalg.qr(np.random.default_rng(s).standard_normal((6, 6)))[0] for s in (0, 1))
    s = np.array([4.0, 2.0, 1.0, 1e-3, 1e-18, 0.0])
    A = (U * s) @ V
    assert metrics.spectrum(A)[:4] == pytest.approx(s[:4], rel=1e-12)
    assert metrics.rank(A) == np.linalg.matrix_rank(A) == 4
    assert [metrics.rank(A, tolerance=x) for x in (0.3, 0.2, 1e-3, 1e-4)] == [2, 3, 3, 4]
    shares = s[:4] / s.sum()
    assert metrics.effective_rank(A) == pytest.approx(exp(-sum(x * log(x) for x in shares)), rel=1e-12)
    assert metrics.stable_rank(A) == pytest.approx((s**2).sum() / 16, rel=1e-12)
    for r in range(1, 7):  # equal singular values: all ranks agree
        P = U[:, :r] @ V[:r]
        for metric in (metrics.rank, metrics.effective_rank, metrics.stable_rank):
            assert metric(P) == pytest.approx(r, rel=1e-11)


# ------------------------------------------------------------------------------------------------ the table


def test_the_table_fits_a_terminal_and_lists_every_metric() -> None:
    for width in (80, 110):
        text = metrics.table(width)
        assert max(map(len, text.splitlines())) <= width
    named = {metric.function.__name__ for metric in metrics.catalogue()}
    others = {"CONVENTIONS", "FORMS", "NORMALISATIONS", "Metric", "catalogue", "class_means", "table"}
    others |= {"Classification", "Distance", "classify_solution", "layered"}
    others |= {metric.function.__name__ for metric in (*metrics.layered(), *metrics.regressive())} | {
        "regressive"
    }
    assert named == set(metrics.__all__) - others
    for call, metric in CATALOGUE.items():
        assert call in text
        assert metric.formula in " ".join(text.split())
        assert set(metric.unchanged_by) <= set(TRANSFORMATIONS)
        assert f"unchanged by {', '.join(metric.unchanged_by)}" in " ".join(text.split())


RUN = ufm.simulate(ufm.UFM(2, 2), ufm.GD(0.1), steps=1)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda W, H, y: metrics.nc0(W, "squared"), "nc0.normalisation"),
        (lambda W, H, y: metrics.nc1(H, y, "svd"), "nc1.form"),
        (lambda W, H, y: metrics.nc1(H, y, cutoff=1.0), "nc1.cutoff"),
        (lambda W, H, y: metrics.nc1(H, y, "quotient", cutoff=0.1), "inverts nothing"),
        (lambda W, H, y: metrics.zhu_nc1(H, y, cutoff=-1), "zhu_nc1.cutoff"),
        (lambda W, H, y: metrics.nc2(H, y, convention="zhu"), "nc2.convention"),
        (lambda W, H, y: metrics.nc2a(H, y, "printed"), "nc2a.convention"),
        (lambda W, H, y: metrics.nc2wn(W, "printed"), "nc2wn.convention"),
        (lambda W, H, y: metrics.nc2m(W, H, y, "printed"), "nc2m.convention"),
        (lambda W, H, y: metrics.nc2(H, y[:-1]), "shapes of H, labels"),
        (lambda W, H, y: metrics.nc2(H, np.where(y == 1, 0, y)), r"without a sample is \[1\]"),
        (lambda W, H, y: metrics.nc2(H, y - 1), "whole numbers 0"),
        (lambda W, H, y: metrics.nc3(W[:, :-1], H, y), "nc3.W"),
        (lambda W, H, y: metrics.nc4(W[:-1], H, y), "nc4.W"),
        (lambda W, H, y: metrics.nc3(W), "no features"),
        (lambda W, H, y: metrics.nc0(W[0]), "classes, width"),
        (lambda W, H, y: metrics.nc0(W, layer=1), "nc0.layer is 1; allowed: None with plain arrays"),
        (lambda W, H, y: metrics.nc2(H, y, layer=1), "layer is 1; allowed: None with plain arrays"),
        (lambda W, H, y: metrics.nc0(RUN, layer=2), "nc0.layer is 2"),
        (lambda W, H, y: metrics.nc2(RUN, layer=0), "class_means.layer is 0"),
        (lambda W, H, y: metrics.nc3(RUN, layer="last"), "nc3.layer is 'last'"),
        (lambda W, H, y: metrics.nc3(RUN, H, y), "a trajectory alone"),
        (lambda W, H, y: metrics.nc3(W, RUN), "a trajectory alone"),
        (lambda W, H, y: metrics.nc2(RUN, y), "a trajectory alone"),
        (lambda W, H, y: metrics.nc4(RUN, b=[0, 0]), "a trajectory alone"),
        (lambda W, H, y: metrics.nc4(W, H, y, b=[0.0]), "nc4.b.shape"),
        (lambda W, H, y: metrics.zhu_nc4(W, H, y, b="b"), "zhu_nc4.b is 'b'"),
        (lambda W, H, y: metrics.spectrum(W, "means"), "spectrum.of is 'means'"),
        (lambda W, H, y: metrics.spectrum(RUN, "logits"), "spectrum.of is 'logits'"),
        (lambda W, H, y: metrics.rank(W, tolerance=1.5), "rank.tolerance"),
        (lambda W, H, y: metrics.rank("A"), "rank.A is 'A'"),
        (lambda W, H, y: metrics.stable_rank(W[0]), "stable_rank.A.shape"),
        (lambda W, H, y: RUN.features(2), "Trajectory.features.layer is 2"),
    ],
)
def test_bad_input_gets_a_sentence(call, sentence) -> None:
    with pytest.raises(InvalidProblemError, match=sentence):
        call(*arrays(0))
