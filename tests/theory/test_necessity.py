"""The merged-class saddle, proposition 2.1 with its hypothesis, and its counter-example."""

import numpy as np
import pytest

import ufm
from proofs_check.necessity import normalised_gd
from ufm.errors import InvalidProblemError
from ufm.metrics import nc0, nc2, nc2w, nc3
from ufm.theory import necessity
from ufm.theory.necessity import escape_direction, merged_class_saddle, saddle_curvature

CLAIMS = {claim.name: claim for claim in necessity.CLAIMS}
SADDLES = [
    (3, 4, 2, 5e-3, 1e-3, None),
    (4, 6, 3, 5e-3, 1e-3, None),
    (10, 12, 3, 1e-3, 1e-3, 3),
    (5, 6, 1, 0.1, 0.1, None),
    (5, 6, 1, 0.19, 0.2, 1),
    (7, 8, 4, 1e-8, 1e-6, 6),
    (3, 4, 1, 0.333, 0.333, 1),
]


def objective(W, H, labels, lam_W, lam_H) -> float:
    Z = W @ H
    top = Z.max(axis=0)
    fit = np.mean(top + np.log(np.exp(Z - top).sum(axis=0)) - Z[labels, np.arange(len(labels))])
    return fit + lam_W / 2 * (W**2).sum() + lam_H / 2 * (H**2).sum()


def gradient(W, H, labels, lam_W, lam_H):
    Z = W @ H
    P = np.exp(Z - Z.max(axis=0))
    R = (P / P.sum(axis=0) - np.eye(len(W))[:, labels]) / len(labels)
    return R @ H.T + lam_W * W, W.T @ R + lam_H * H


@pytest.mark.parametrize("case", SADDLES)
def test_saddle_is_critical_with_alpha_zero_and_no_collapse(case) -> None:
    K, d, n, lam_W, lam_H, _ = case
    state, labels = merged_class_saddle(*case), np.repeat(np.arange(K), n)
    W, H = state["W1"], state["H"]
    assert W.shape == (K, d)
    assert H.shape == (d, K * n)
    assert max(np.abs(block).max() for block in gradient(W, H, labels, lam_W, lam_H)) < 1e-12
    assert nc0(W) < 1e-28 * (W**2).sum()
    assert nc2(H, labels) > 0.7
    assert nc2w(W) > 0.7
    # balance, which holds at every critical point and was not put in
    assert lam_W * (W**2).sum() == pytest.approx(lam_H * (H**2).sum(), rel=1e-12)
    assert np.linalg.matrix_rank(H) == 1


@pytest.mark.parametrize("case", SADDLES[:3])
def test_curvature_along_the_escape_direction(case) -> None:
    K, d, n, lam_W, lam_H, first = case
    state, labels = merged_class_saddle(*case), np.repeat(np.arange(K), n)
    group = K // 2 if first is None else first
    pair = (0, 1) if group >= 2 else (K - 2, K - 1)
    D = escape_direction(K, d, n, lam_W, lam_H, pair)
    step = 1e-3

    def at(s):
        return objective(state["W1"] + s * D["W1"], state["H"] + s * D["H"], labels, lam_W, lam_H)

    measured = (at(step) - 2 * at(0.0) + at(-step)) / step**2
    assert measured == pytest.approx(saddle_curvature(K, n, lam_W, lam_H), abs=1e-6)
    assert measured < 0


def test_merged_classes_cannot_be_told_apart_however_small_the_decay() -> None:
    """K = 4 in two pairs: the loss stays above log 2 and tends to it, while alpha = 0 throughout."""
    labels, losses = np.repeat(np.arange(4), 3), []
    for lam in (1e-2, 1e-4, 1e-6):
        state = merged_class_saddle(4, 6, 3, lam, lam)
        losses.append(objective(state["W1"], state["H"], labels, 0.0, 0.0))
        assert nc0(state["W1"]) < 1e-28
    assert losses[0] > losses[1] > losses[2] > np.log(2)
    assert losses[2] == pytest.approx(np.log(2), abs=1e-4)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((2, 4, 1, 1e-3, 1e-3), "classes is 2"),
        ((4, 0, 1, 1e-3, 1e-3), "width, per_class"),
        ((4, 4, 0, 1e-3, 1e-3), "width, per_class"),
        ((4, 4, 1, 1e-3, 1e-3, 4), "first_group is 4"),
        ((4, 4, 1, 0.25, 0.25), "K\\^2 n lam_W lam_H < 1"),
        ((4, 4, 1, 0.0, 1e-3), "K\\^2 n lam_W lam_H < 1"),
    ],
)
def test_saddle_refuses_what_has_none(arguments, sentence) -> None:
    assert merged_class_saddle(4, 1, 1, 1e-3, 1e-3)["W1"].shape == (4, 1)  # what it just accepts
    with pytest.raises(InvalidProblemError, match=sentence):
        merged_class_saddle(*arguments)
    with pytest.raises(InvalidProblemError, match=r"escape_direction\.width"):
        escape_direction(4, 1, 1, 1e-3, 1e-3, (0, 1))
    with pytest.raises(InvalidProblemError, match=r"escape_direction\.pair"):
        escape_direction(4, 2, 1, 1e-3, 1e-3, (0, 4))


def test_both_bounds_of_proposition_2_1_hold_at_random_states() -> None:
    rng = np.random.default_rng(0)
    closest = 0.0
    for _ in range(300):
        K, d, n = rng.integers(2, 9), rng.integers(1, 12), rng.integers(1, 4)
        labels = np.repeat(np.arange(K), n)
        H = rng.standard_normal((d, K * n)) + rng.standard_normal()
        M = np.stack([H[:, labels == k].mean(axis=1) for k in range(K)])
        W = M - M.mean(axis=0) + 10 ** rng.uniform(-4, 1) * rng.standard_normal((K, d))
        relative = nc0(W) / (W**2).sum()
        from_nc2w, from_nc3 = necessity.relative_nc0_bounds(nc2w(W), nc3(W, H, labels))
        assert relative <= from_nc2w * (1 + 1e-12)
        assert relative <= from_nc3 * (1 + 1e-12) + 1e-30
        closest = max(closest, relative / from_nc3)
    assert closest > 0.5


def test_counter_example_without_decay() -> None:
    """K = 4, d = 6, n = 2, lr 0.01, 2000 steps; with decay 1e-6 alpha falls like the other metrics."""
    free, decayed = normalised_gd(), normalised_gd(decay=1e-6)
    assert abs(free["alpha"] - 1) < 1e-12
    assert free["nc2w"] < 0.02
    assert free["nc3"] < 0.01
    assert free["norm"] > 30
    assert decayed["alpha"] < 1e-20


def run_of(decay, optimizer=None, problem=None, **options):
    problem = problem or ufm.UFM(4, 6, per_class=2)
    return ufm.simulate(
        problem, optimizer or ufm.GD(0.1), decay, **{"steps": 20, "throw": False, "seed": 1, **options}
    ).judged()


def test_proposition_2_1_as_a_claim_about_runs() -> None:
    claim = CLAIMS["zhao2026.prop2.1"]
    for problem in (ufm.UFM(4, 6, per_class=2), ufm.UFM(4, 6, per_class=3, features=ufm.SimplexETF())):
        run = run_of(ufm.Coupled(W=1e-3), problem=problem)
        assert claim.applies(run) is None
        prediction, control = claim.predict(run), claim.control(run)
        assert prediction.ratio < 1
        assert control.ratio > 1e6  # the prefactors that the paper prints make it false
        assert prediction.nc0 is None
        W = run.trajectory["W"]
        assert prediction.observed == pytest.approx(nc0(W) / (W**2).sum(axis=(1, 2)), rel=1e-12)
        assert np.all(prediction.bound < 1e-13)


def test_a_state_beyond_the_bound_by_a_millionth_is_refused(monkeypatch) -> None:
    """W = cos f M^T/||M|| + sin f 1 c^T is so near equality that bounds smaller by 1e-6 fail at it."""
    claim, f = CLAIMS["zhao2026.prop2.1"], 1e-4
    M = np.hstack([np.eye(4) - 0.25, np.zeros((4, 1))])
    W = np.cos(f) * M / np.linalg.norm(M)
    W[:, 4] = np.sin(f) / 2
    start = ufm.Start(W=ufm.Given(W), H=ufm.Given(M.T.copy()))
    run = run_of(ufm.Coupled(W=1e-3), problem=ufm.UFM(4, 5), steps=0, init=start)
    assert claim.predict(run).ratio < 1
    wrong = lambda nc2w, nc3: (nc2w, nc3**2 * (1 - 1e-6))  # noqa: E731
    monkeypatch.setattr(necessity, "relative_nc0_bounds", wrong)
    assert claim.predict(run).ratio > 1


def test_proposition_2_1_needs_decay_inside_its_range() -> None:
    applies = CLAIMS["zhao2026.prop2.1"].applies
    assert "no weight decay acts on W1" in applies(run_of(None))
    assert "no weight decay acts on W1" in applies(run_of(ufm.Coupled(H=1e-3)))
    assert applies(run_of(ufm.Decoupled(W=1e-3))) is None
    assert applies(run_of(ufm.Decoupled(W=1.9), ufm.GD(1.0))) is None
    assert "lr * decay = 2.5 is outside the range" in applies(run_of(ufm.Decoupled(W=2.5), ufm.GD(1.0)))
    assert "outside the range" in applies(run_of(ufm.Decoupled(W=2.5), ufm.Adam(1.0)))
    # coupled decay: 2 (1 + beta) for heavy ball, 2 (1 + beta)/(1 + 2 beta) for Nesterov
    assert applies(run_of(ufm.Coupled(W=2.9), ufm.Momentum(1.0, 0.5))) is None
    assert "outside the range" in applies(run_of(ufm.Coupled(W=3.1), ufm.Momentum(1.0, 0.5)))
    assert applies(run_of(ufm.Coupled(W=1.4), ufm.Momentum(1.0, 0.5, nesterov=True))) is None
    assert "outside the range" in applies(run_of(ufm.Coupled(W=1.6), ufm.Momentum(1.0, 0.5, nesterov=True)))
    frozen = ufm.UFM(4, 4, classifier=ufm.SimplexETF())
    assert "frozen" in applies(run_of(None, problem=frozen))


def test_no_saddle_of_this_form_at_the_threshold() -> None:
    for K, n in ((3, 1), (7, 2)):
        lam = float(np.sqrt(necessity.saddle_threshold(K, n)))
        assert merged_class_saddle(K, 4, n, lam * 0.999, lam)
        with pytest.raises(InvalidProblemError, match="K\\^2 n lam_W lam_H < 1"):
            merged_class_saddle(K, 4, n, lam * (1 + 1e-12), lam)


@pytest.mark.parametrize(("units", "judged"), [(10, False), (20, True)])
def test_class_means_that_differ_by_rounding_alone_give_no_direction(units, judged):
    """The limit is 4 K eps of the largest mean, 6 eps here: means 4.1 eps apart are not judged, 8.2 eps are."""
    H = np.array([[1.0, 1.0 + units * 2.0**-52, 1.0]])
    start = ufm.Given(W=np.array([[1.0], [2.0], [-1.0]]), H=H)
    traj = ufm.simulate(ufm.UFM(3, 1), ufm.GD(0.1), ufm.Coupled(0.1), steps=0, init=start)
    assert len(necessity._relative_nc0(traj.judged()).bound) == judged


def test_error_of_nc3_grows_with_the_offset_of_the_class_means(rng):
    """Centring loses digits in proportion to the largest mean over the norm of the centred ones."""
    W = rng.standard_normal((3, 4))
    W -= W.mean(axis=0)
    features, bounds = W.T + 1e-3 * rng.standard_normal((4, 3)), []
    for offset in (2.0**10, 2.0**20):
        start = ufm.Given(W=W, H=features + offset)
        traj = ufm.simulate(ufm.UFM(3, 4), ufm.GD(0.1), ufm.Coupled(0.1), steps=0, init=start)
        bounds.append(float(necessity._relative_nc0(traj.judged()).bound[0]))
    assert 500 < bounds[1] / bounds[0] < 1100


def test_error_of_nc2w_is_four_roundings_of_each_row_and_of_the_result(rng):
    """A head near a simplex over features that are not: NC2W is the smaller bound."""
    W = np.eye(3) - 1 / 3 + 1e-3 * rng.standard_normal((3, 3))
    start = ufm.Given(W=W, H=rng.standard_normal((3, 3)))
    traj = ufm.simulate(ufm.UFM(3, 3), ufm.GD(0.1), ufm.Coupled(0.1), steps=0, init=start)
    found = necessity._relative_nc0(traj.judged())
    assert found.bound == pytest.approx(2.0**-50 * (3 + found.observed), rel=1e-12, abs=0)


def test_error_of_nc3_squared_where_there_is_nothing_else():
    """W equal to the centred means, whose row sum is 0, bit for bit: the square of the error of NC3 is left."""
    W = np.array([[2.0], [-1.0], [-1.0]])
    start = ufm.Given(W=W, H=W.T.copy())
    traj = ufm.simulate(ufm.UFM(3, 1), ufm.GD(0.1), ufm.Coupled(0.1), steps=0, init=start)
    found, in_nc3 = necessity._relative_nc0(traj.judged()), 2.0**-52 * 3 * (4 + 2 * 2 / np.sqrt(6))
    assert nc3(W, W.T, np.arange(3)) == found.observed[0] == 0
    assert found.bound == pytest.approx([in_nc3**2], rel=1e-12, abs=0)


def test_error_of_nc3_squared_is_that_of_nc3_carried_through_the_square(rng):
    """Features beside W^T, which is far from a simplex: NC3 is the smaller bound."""
    W = rng.standard_normal((3, 4))
    H = (W - W.mean(axis=0)).T + 0.1 * rng.standard_normal((4, 3))
    traj = ufm.simulate(ufm.UFM(3, 4), ufm.GD(0.1), ufm.Coupled(0.1), steps=0, init=ufm.Given(W=W, H=H))
    found, eps = necessity._relative_nc0(traj.judged()), 2.0**-52
    away = float(nc3(W, H, np.arange(3)))
    assert away**2 < nc2w(W)
    centred = H - H.mean(axis=1, keepdims=True)
    in_nc3 = eps * 3 * (4 + 2 * np.abs(H).max() / np.linalg.norm(centred))
    expected = in_nc3 * (2 * away + in_nc3) + 4 * eps * found.observed
    assert found.bound == pytest.approx(expected, rel=1e-12, abs=0)
