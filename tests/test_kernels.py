"""Compiled kernels against their plain twin, their derivative, multiple precision, and theorem 3.3."""

import itertools
from dataclasses import replace

import mpmath
import numba
import numpy as np
import pytest

import ufm
from ufm.epochs import batch_order
from ufm.errors import UfmError
from ufm.initial import Gaussian, Given, SimplexETF, Start, Zeros
from ufm.kernels import reference
from ufm.losses import MSE, CrossEntropy
from ufm.optimizers import GD, Adam, Momentum, NormalisedGD, SignGD, Signum

EPS = 2.0**-52
K, WIDTH, SIZES = 4, 5, (2, 1, 2, 1)
STEPS = 20
SOFT = np.random.default_rng(5).dirichlet(np.ones(K), sum(SIZES)).T

LOSSES = {
    "ce": CrossEntropy(),
    "ce_sum": CrossEntropy(reduction="sum"),
    "smoothed": CrossEntropy(smoothing=0.1),
    "soft": CrossEntropy(targets=SOFT),
    "mse": MSE(),
    "mse_sum": MSE(reduction="sum"),
}
OPTIMIZERS = {
    "gd": GD(0.05),
    "momentum": Momentum(0.02, 0.8),
    "nesterov": Momentum(0.02, 0.8, nesterov=True),
    "signgd": SignGD(0.01),
    "signum": Signum(0.01, 0.7),
    "adam": Adam(0.01),
    "normalised": NormalisedGD(0.05),
}
DECAYS = {
    "none": None,
    "coupled": ufm.Coupled(0.02),
    "decoupled": ufm.Decoupled(0.3),
    "before": ufm.Mixed(0.02, 0.3),
    "after": ufm.Mixed(0.02, 0.3, shrink="after"),
}
SHAPES = [(1, "identity"), (2, "relu"), (2, "identity"), (4, "relu"), (4, "identity")]
BIAS, BATCH = (False, True), (None, 4)  # 6 samples: batches of 4 and 2


def problem_of(loss, depth, activation, bias):
    if depth == 1:
        return ufm.UFM(K, WIDTH, SIZES, loss=loss, bias=bias)
    return ufm.DUFM(K, WIDTH, depth, SIZES, activation=activation, loss=loss, bias=bias)


# ------------------------------------------------------------- compiled == reference, every combination


def sums_of_terms(problem, state, columns):
    """Sum of the absolute terms of every gradient entry: the size that its round-off is measured by."""
    L, relu = problem.depth, problem.activation == "relu"
    X = {1: state["H"][:, columns]}
    A = {1: np.abs(X[1])}
    for layer in range(1, L + 1):
        Z, A[layer + 1] = state[f"W{layer}"] @ X[layer], np.abs(state[f"W{layer}"]) @ A[layer]
        X[layer + 1] = Z
        if relu and layer < L:
            X[layer + 1] = np.maximum(Z, 0.0)
            A[layer + 1] = A[layer + 1] * (Z > 0)
    Z, Z_terms = X[L + 1], A[L + 1]
    if problem.bias:
        Z, Z_terms = Z + state["b"][:, None], Z_terms + np.abs(state["b"])[:, None]
    Y = reference.targets(problem)[:, columns]
    scale = 1.0 if problem.loss.reduction == "sum" else 1.0 / Z.shape[1]
    if isinstance(problem.loss, MSE):
        D = scale * (Z_terms + Y)
    else:
        p = np.exp(Z - Z.max(axis=0))
        p = p / p.sum(axis=0) * Y.sum(axis=0)
        D = scale * (p * (1 + 2 * Z_terms.max(axis=0)) + Y)
    found = {"b": D.sum(axis=1), "H": np.zeros_like(state["H"])}
    for layer in range(L, 0, -1):
        found[f"W{layer}"] = D @ A[layer].T
        D = np.abs(state[f"W{layer}"]).T @ D
        if relu and layer > 1:
            D = D * (X[layer] > 0)
    found["H"][:, columns] = D
    return found


def decided_steps(run, states):
    """Records up to which no sign hangs on |g| < 100 eps x the sum of its terms (Signum: |v|)."""
    problem, beta = run.problem, getattr(run.optimizer, "beta", 0.0)
    order = batch_order(run, 0, run.steps)
    m = dict.fromkeys(problem.trained, 0.0)
    terms = dict.fromkeys(problem.trained, 0.0)
    for t in range(run.steps):
        state = {name: value[t] for name, value in states.items()}
        columns = order[t][order[t] >= 0] if len(order) else np.arange(problem.samples)
        _, gradient = reference.fit_and_gradient(problem, state, columns)
        sizes = sums_of_terms(problem, state, columns)
        for name in problem.trained:
            lam = run.coupled[name]
            m[name] = beta * m[name] + (1 - beta) * (gradient[name] + lam * state[name])
            terms[name] = beta * terms[name] + (1 - beta) * (sizes[name] + lam * np.abs(state[name]))
            if (np.abs(m[name]) < 100 * EPS * terms[name]).any():
                return t + 1
    return run.steps + 1


def growth_of_errors(traj):
    """Largest factor by which the run itself magnifies a change of its start, over all steps."""
    size, rng = 1e-8, np.random.default_rng(0)
    direction = rng.standard_normal(traj.states.shape[1])
    start = traj.states[0] + size * direction
    run = traj.run
    other = ufm.simulate(
        run.problem, run.optimizer, run.decay, init=Given(**dict(run.problem.unpack(start))),
        steps=run.steps, seed=run.seed, batch=run.batch,
    )  # fmt: skip
    change = np.linalg.norm(other.states - traj.states, axis=1)
    return max(1.0, float(change.max() / change[0]))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("loss", LOSSES)
def test_compiled_equals_reference(loss, optimizer):
    """|difference at t| <= eps x (terms of a sum) x (t + 1) x growth x max|theta|: every step rounds once more.

    `growth` is measured: what the run makes of a change of its start. Signs do not grow, they flip or not.
    """
    worst, which, short = 0.0, "", []
    rule = OPTIMIZERS[optimizer]
    for (depth, activation), bias, batch, decay in itertools.product(SHAPES, BIAS, BATCH, DECAYS):
        problem = problem_of(LOSSES[loss], depth, activation, bias)
        init = Start(Gaussian(0.5), b=Gaussian(0.1)) if bias else Gaussian(0.5)
        name = f"depth {depth}, {activation}, bias {bias}, batch {batch}, decay {decay}"
        traj = ufm.simulate(problem, rule, DECAYS[decay], steps=STEPS, init=init, batch=batch, seed=3)
        states = reference.simulate(traj.run)
        compared, growth = STEPS + 1, 1.0
        if optimizer in ("signgd", "signum"):
            compared = decided_steps(traj.run, states)
            short += [name] if compared <= STEPS else []
        else:
            growth = growth_of_errors(traj)
        assert growth < 1e3, f"{name}: chaotic, {growth:.3g}"
        terms = max(problem.samples, *problem.widths, K)
        allowed = EPS * terms * (np.arange(STEPS + 1) + 1) * growth * np.abs(traj.states).max()
        for block in problem.trained:
            difference = np.abs(traj[block] - states[block]).reshape(STEPS + 1, -1).max(axis=1)
            ratio = float((difference / allowed)[:compared].max())
            if not ratio <= worst:
                worst, which = (
                    ratio,
                    f"{name}, {block}: {difference[:compared].max():.2e}, growth {growth:.2g}",
                )
    print(
        f"{loss:9s} {optimizer:11s} worst {worst:8.2e} of the bound; undecided signs in {len(short)} ({which})"
    )
    assert worst <= 1, which
    assert len(short) <= 3, short


BLOCKS = ("H", "W1", "W2", "W3", "b")
FROZEN = [names for count in range(5) for names in itertools.combinations(BLOCKS, count)]


@pytest.mark.parametrize("activation", ["relu", "identity"])
def test_any_blocks_may_be_frozen(activation, rng):
    """All 31 choices of trained blocks, full and mini-batches, plain and with exponents carried."""
    state = ufm.DUFM(K, WIDTH, 3, SIZES, bias=True).unpack(0.5 * rng.standard_normal(117))
    for frozen, batch in itertools.product(FROZEN, BATCH):
        fixed = {name: Given(state[name]) for name in frozen} or None
        problem = ufm.DUFM(K, WIDTH, 3, SIZES, activation=activation, loss="ce", bias=True, frozen=fixed)
        start = Given(**{name: state[name] for name in problem.trained})
        decay = ufm.Mixed(0.02, 0.3)
        traj = ufm.simulate(problem, Momentum(0.05, 0.8), decay, steps=10, init=start, batch=batch)
        states = reference.simulate(traj.run)
        for name in problem.trained:
            assert np.abs(traj[name] - states[name]).max() <= 1e-14, (frozen, batch, name)
        for name in frozen:
            assert np.array_equal(traj[name][-1], state[name])
        options = {"steps": 10, "init": start, "batch": batch}
        plain = ufm.simulate(problem, SignGD(0.01), decay, **options)
        assert np.abs(plain.states - forced(problem, SignGD(0.01), decay, **options).states).max() <= 1e-14


# ---------------------------------------------------------------------------------------- the gradient


@pytest.mark.parametrize(("depth", "activation"), SHAPES)
@pytest.mark.parametrize("loss", LOSSES)
def test_gradient_has_taylor_slope_two(loss, depth, activation):
    """F(x + h d) - F(x) - h <g, d> falls like h^2 for h from 1e-3 to 1e-5, slope 2 +- 0.02."""
    decay = ufm.Coupled(0.03)
    for bias in BIAS:
        problem = problem_of(LOSSES[loss], depth, activation, bias)
        for seed in range(100):
            rng = np.random.default_rng(seed)
            x, d = 0.5 * rng.standard_normal((2, problem.size))
            at = [problem.unpack(x + h * d) for h in (-1e-3, 0, 1e-3)]
            if len({tuple(kinks(problem, state)) for state in at}) == 1:
                break  # no ReLU switches between the points
        g = problem.gradient(at[1], decay)
        slope = sum(float(np.sum(g[name] * problem.unpack(d)[name])) for name in problem.trained)
        h = np.geomspace(1e-3, 1e-5, 5)
        values = [problem.value(problem.unpack(x + step * d), decay) for step in h]
        rest = np.abs(np.array(values) - problem.value(at[1], decay) - h * slope)
        order = np.diff(np.log(rest)) / np.diff(np.log(h))
        assert np.all(np.abs(order - 2) < 0.02), (bias, order, rest)


def kinks(problem, state):
    signs, X = [], state["H"]
    for layer in range(1, problem.depth):
        X = state[f"W{layer}"] @ X
        signs.append((X > 0).tobytes())
        X = np.maximum(X, 0) if problem.activation == "relu" else X
    return signs


# -------------------------------------------------------------------------------------------- references


def test_kernels_that_make_no_array_count_no_references():
    """`_nrt` is a private option of numba: that it is heard shows in what cannot be compiled without counters."""
    from ufm.kernels import contract, doubt, extended, loop

    def allocate(x):
        return np.zeros(2)[0] + x

    assert numba.njit("float64(float64)", **contract.ALLOCATING)(allocate)(1.0) == 1.0
    with pytest.raises(numba.core.errors.NumbaError, match="empty"):
        numba.njit("float64(float64)", **contract.OPTIONS)(allocate)
    for function, kind, counts in [
        (loop.run, "run", False), (doubt.alarm, "watch", False), (extended.run, "run", True),
    ]:  # fmt: skip
        options = contract.compiled(function, kind, "float64").targetoptions
        assert options.get("_nrt", True) == counts


@pytest.mark.parametrize("kind", ["inline", "helper", "apart"])
def test_functions_of_kernels_become_machine_code_in_their_callers_alone(kind):
    """That numba's code generator hears what `ufm.kernels.linked` asks of it."""
    from ufm.kernels import contract

    def translated(affine):
        """Whether the function has machine code of its own before anybody calls it, and is not copied into callers."""
        affine.compile((numba.float64,))
        (result,) = affine.overloads.values()
        library, name = result.library, result.fndesc.mangled_name
        stays_apart = any(b"noinline" in group for group in library.get_function(name).attributes)
        return library.get_pointer_to_function(name) != 0, stays_apart

    def affine(x):
        return 2.0 * x + 1.0

    piece = getattr(contract, kind)(affine)
    assert translated(piece) == (False, kind == "apart")
    assert numba.njit(lambda x: piece(x))(3.0) == 7.0
    assert translated(numba.njit(affine)) == (True, False)


# ------------------------------------------------------------------------------------------ exponential


def test_exponential_is_right_to_four_eps(rng):
    from ufm.kernels.exponential import exp

    @numba.njit
    def apply(x, out):
        for j in range(x.size):
            out[j] = exp(x[j])

    x = np.concatenate([
        rng.uniform(-708, 0, 8000), rng.uniform(0, 23, 1000), -np.geomspace(1e-300, 708, 4000),
        -np.arange(0, 1021) * np.log(2) / 2, [0.0, -0.0, -708.0, np.nextafter(-708.0, 0)],
    ])  # fmt: skip
    out = np.empty_like(x)
    apply(x, out)
    with mpmath.workdps(40):
        worst = max(
            float(abs(mpmath.mpf(y) / mpmath.exp(mpmath.mpf(z)) - 1)) for z, y in zip(x, out, strict=True)
        )
    print(f"exp: worst relative error {worst / EPS:.3f} eps")
    assert worst < 4 * EPS
    special = np.array([np.nextafter(-708.0, -np.inf), -709.0, -1e5, -1e300, -np.inf, np.nan])
    out = np.empty_like(special)
    apply(special, out)
    assert np.all(out[:5] == 0)
    assert np.isnan(out[5])


# ------------------------------------------------------------------------------------------------ heads


def head_of(loss, Z, sizes, dtype="float64"):
    from ufm.kernels import losses

    head, value = losses.pair(loss, dtype)
    segments = np.concatenate([[0], np.cumsum(sizes)])
    R, work = np.full_like(Z, np.nan), np.zeros(3 * Z.shape[1], dtype)
    parameters = losses.parameters(loss, dtype)
    none = np.zeros((0, 0), dtype)
    scale = Z.dtype.type(1 / Z.shape[1])
    flag = head(Z, segments, none, parameters, scale, R, work)
    return flag, R, value(Z, segments, none, parameters, scale)


@pytest.mark.parametrize("gap", [5.0, 36.0, 46.0, 100.0, 250.0])
def test_true_residual_has_no_cancellation(gap, rng):
    """Relative error <= eps (8 + K + gap) where the true probability is within e^-gap of 1, and of the value."""
    sizes = (3, 1, 2, 2)
    Z = rng.uniform(-1, 1, (4, 8))
    labels = np.repeat(np.arange(4), sizes)
    Z[labels, np.arange(8)] += gap
    flag, R, value = head_of(CrossEntropy(), Z, sizes)
    assert flag == 0
    with mpmath.workdps(200):
        losses = []
        for i, k in enumerate(labels):
            e = [mpmath.exp(mpmath.mpf(z)) for z in Z[:, i]]
            total = mpmath.fsum(e)
            for j in range(4):
                exact = (e[j] / total - (j == k)) / 8
                assert abs(float(mpmath.mpf(R[j, i]) / exact - 1)) <= EPS * (12 + gap)
            losses.append(mpmath.log(total) - mpmath.mpf(Z[k, i]))
        exact = mpmath.fsum(losses) / 8
        assert abs(float(mpmath.mpf(value) / exact - 1)) <= EPS * (12 + gap)
    # column sums of R stand for 1^T grad_W = 0
    assert np.abs(R.sum(axis=0)).max() <= 4 * EPS * np.abs(R).max()


@pytest.mark.parametrize("loss", [CrossEntropy(), CrossEntropy(smoothing=0.1), MSE()], ids=repr)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_heads_report_logits_that_are_not_finite(loss, bad, rng):
    for k, i in itertools.product(range(4), range(4)):
        Z = rng.standard_normal((4, 4))
        Z[k, i] = bad
        assert head_of(loss, Z, (1, 1, 1, 1))[0] == 2, (k, i)


def test_heads_ask_for_exponents_only_where_residuals_are_small():
    Z = np.zeros((3, 3))
    Z[0, 0] = 299.0
    assert head_of(CrossEntropy(), Z, (1, 1, 1))[0] == 0
    Z[0, 0] = 301.0
    assert head_of(CrossEntropy(), Z, (1, 1, 1))[0] == 1
    assert head_of(CrossEntropy(smoothing=0.1), Z, (1, 1, 1))[0] == 0


def test_heads_judge_every_column(rng):
    """Among 21 columns, which are more than fit into two vectors."""
    for i, (bad, flag) in itertools.product(range(21), ((np.nan, 2), (-np.inf, 2), (-301.0, 1), (-299.0, 0))):
        Z = np.zeros((3, 21))
        Z[1, i] = bad
        assert head_of(CrossEntropy(), Z, (2, 18, 1))[0] == flag, (i, bad)


@pytest.mark.parametrize(
    "sizes", [(1, 9, 3, 20, 2), (8, 8, 8), (17, 1), (1, 1, 1, 1, 1, 1, 1, 1, 1)], ids=repr
)
def test_a_class_may_begin_and_end_in_any_column(sizes, rng):
    Z = rng.standard_normal((len(sizes), sum(sizes)))
    flag, R, _ = head_of(CrossEntropy(), Z, sizes)
    e = np.exp(Z - Z.max(axis=0))
    onehot = np.repeat(np.eye(len(sizes)), sizes, axis=1)
    assert flag == 0
    assert np.abs(R - (e / e.sum(axis=0) - onehot) / Z.shape[1]).max() <= 8 * EPS / Z.shape[1]


# ------------------------------------------------------------------------------------- exponents carried


def forced(problem, optimizer, decay=None, *, steps, **options):
    """The same run with exponents carried from the first step."""
    start = ufm.simulate(problem, optimizer, decay, steps=0, **options)
    end = replace(start.end, unit=np.zeros(problem.size))
    return replace(start, end=end).resume(steps)


@pytest.mark.parametrize(
    "optimizer",
    [SignGD(0.01), Signum(0.01, 0.6), Adam(0.01, 0.8, 0.9, eps=0.0), NormalisedGD(0.05)],
    ids=repr,
)
def test_carried_exponents_change_nothing_where_nothing_underflows(optimizer):
    """Differences <= 1e3 eps x steps: logarithms carry a few eps of relative error more than products."""
    worst = 0.0
    for (depth, activation), bias, batch, decay in itertools.product(SHAPES, BIAS, BATCH, DECAYS):
        problem = problem_of("ce", depth, activation, bias)
        options = {"steps": 30, "init": Gaussian(0.5), "batch": batch, "seed": 1}
        plain = ufm.simulate(problem, optimizer, DECAYS[decay], **options)
        carried = forced(problem, optimizer, DECAYS[decay], **options)
        assert plain.stats["exponents_from"] == -1
        assert carried.stats["undecided_signs"] == 0
        difference = np.abs(plain.states - carried.states).max()
        worst = max(worst, difference)
        assert difference <= 1e3 * EPS * 30, (depth, activation, bias, batch, decay, difference)
    print(f"carried exponents, {optimizer!r}: worst difference {worst:.2e}")


@pytest.mark.parametrize("optimizer", [SignGD(0.1), Signum(0.1, 0.3), Adam(0.1, 0.0, 0.0, eps=0.0)], ids=repr)
def test_theorem_3_3_where_probabilities_underflow(optimizer):
    """alpha_t = ((K-2)/lam)^2 (1 - (1 - eta lam)^t)^2 at K = 10, lam = 5e-4, to 1e-9 after 12/(eta lam) steps."""
    lam, lr, classes = 5e-4, 0.1, 10
    problem = ufm.UFM(classes, classes, features=SimplexETF())
    steps = round(12 / (lr * lam))
    traj = ufm.simulate(
        problem, optimizer, ufm.Decoupled(lam), steps=steps, init=Zeros(), record=ufm.LogSpaced(40)
    )
    alpha = (traj["W"].sum(axis=1) ** 2).sum(axis=1) / classes
    expected = ((classes - 2) / lam) ** 2 * np.expm1(traj.steps * np.log1p(-lr * lam)) ** 2
    error = np.abs(alpha[1:] / expected[1:] - 1).max()
    print(
        f"theorem 3.3, {optimizer!r}: worst relative error {error:.1e}, {traj.stats['steps_per_second']:.3g} steps/s"
    )
    assert traj.stats["exponents_from"] > 0
    assert traj.stats["undecided_signs"] == 0
    assert error <= 1e-9


@pytest.mark.parametrize("lam", [5e-3, 5e-4])
def test_theorem_3_3_in_single_precision(lam):
    """Probabilities underflow near e^-87 here; the limit is right to eps max|W|/(eta lam max|W|) = eps/(eta lam)."""
    classes, lr = 10, 1.0
    problem = ufm.UFM(classes, classes, features=SimplexETF())
    steps = round(18 / (lr * lam))
    traj = ufm.simulate(
        problem,
        SignGD(lr),
        ufm.Decoupled(lam),
        steps=steps,
        init=Zeros(),
        record=ufm.Every(steps),
        dtype="float32",
    )
    alpha = (traj["W"][-1].astype(float).sum(axis=0) ** 2).sum() / classes
    error = abs(alpha / ((classes - 2) / lam) ** 2 - 1)
    print(f"theorem 3.3 in float32, lam {lam:g}: relative error {error:.1e}")
    assert traj.stats["exponents_from"] > 0
    assert error <= 2 * 2.0**-23 / (lr * lam)


def exact_gradient(problem, state, columns):
    """Gradient of the mean cross-entropy at 60 digits, by trained block, as object arrays."""
    labels, B = problem.labels[columns], len(columns)
    exact = {name: np.vectorize(mpmath.mpf, otypes=[object])(value) for name, value in state.items()}
    X = {1: exact["H"][:, columns]}
    for layer in range(1, problem.depth):
        Z = exact[f"W{layer}"].dot(X[layer])
        X[layer + 1] = np.where(Z > 0, Z, mpmath.mpf(0)) if problem.activation == "relu" else Z
    Z = exact[problem.last].dot(X[problem.depth])
    D = np.empty(Z.shape, object)
    for i in range(B):
        e = [mpmath.exp(z - max(Z[:, i])) for z in Z[:, i]]
        for k in range(problem.classes):
            others = -mpmath.fsum(e[j] for j in range(problem.classes) if j != k)
            D[k, i] = (others if k == labels[i] else e[k]) / mpmath.fsum(e) / B
    found = {}
    for layer in range(problem.depth, 0, -1):
        found[f"W{layer}"] = D.dot(X[layer].T)
        D = exact[f"W{layer}"].T.dot(D)
        if problem.activation == "relu" and layer > 1:
            D = np.where(X[layer] > 0, D, mpmath.mpf(0))
    found["H"] = np.full(state["H"].shape, mpmath.mpf(0))
    found["H"][:, columns] = D
    return {name: found[name] for name in problem.trained}


def separated(rng, problem, gap):
    """A state whose features sit near their class's direction with logit gaps about `gap`."""
    H = np.zeros(problem.shapes["H"])
    H[problem.labels, np.arange(problem.samples)] = np.sqrt(gap)
    state = {"H": H * rng.uniform(0.8, 1.2, H.shape) + 0.3 * rng.standard_normal(H.shape)}
    for layer in range(1, problem.depth + 1):
        W = np.eye(*problem.shapes[f"W{layer}"]) * (np.sqrt(gap) if layer == problem.depth else 1.0)
        state[f"W{layer}"] = W + 0.3 * rng.standard_normal(W.shape)
    return state


@pytest.mark.parametrize("decay", [None, ufm.Coupled(1e-3)], ids=repr)
@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("batch", [None, 5])
def test_signs_beyond_underflow_are_those_of_multiple_precision(batch, depth, decay, rng):
    """One step of SignGD at gaps up to 3000: every sign is right or counted as undecided."""
    wrong = counted = total = 0
    for gap, seed in itertools.product((400, 1000, 3000), range(3)):
        problem = (
            ufm.UFM(4, 5, (2, 3, 1, 2))
            if depth == 1
            else ufm.DUFM(4, 5, depth, (2, 3, 1, 2), activation="relu", loss="ce")
        )
        state = separated(rng, problem, gap)
        traj = ufm.simulate(
            problem, SignGD(2.0**-10), decay, steps=1, init=Given(**state), batch=batch, seed=seed
        )
        assert traj.stats["exponents_from"] == 0
        order = batch_order(traj.run, 0, 1)
        columns = order[0] if len(order) else np.arange(problem.samples)
        with mpmath.workdps(60):
            gradient = exact_gradient(problem, state, columns)
            for name, exact in gradient.items():
                exact = exact + mpmath.mpf(traj.run.coupled[name]) * state[name]
                expected = -np.vectorize(mpmath.sign, otypes=[float])(exact)
                found = np.rint((traj[name][1] - traj[name][0]) * 2**10)
                wrong += int((found != expected).sum())
                total += expected.size
        counted += traj.stats["undecided_signs"]
    print(
        f"depth {depth}, batch {batch}, {decay}: {wrong} of {total} signs wrong, {counted} counted as undecided"
    )
    assert wrong <= counted <= 0.03 * total


@pytest.mark.parametrize("batch", [None, 5])
def test_normalised_gradient_beyond_underflow_has_one_unit(batch, rng):
    """theta_1 = theta_0 - lr g/||g|| with ||g|| over all blocks, right to eps (100 + 4 gap)."""
    for gap in (400, 1500):
        problem = ufm.UFM(4, 5, (2, 3, 1, 2))
        state = separated(rng, problem, gap)
        traj = ufm.simulate(problem, NormalisedGD(1.0), steps=1, init=Given(**state), batch=batch)
        assert traj.stats["exponents_from"] == 0
        order = batch_order(traj.run, 0, 1)
        columns = order[0] if len(order) else np.arange(problem.samples)
        with mpmath.workdps(60):
            gradient = exact_gradient(problem, state, columns)
            norm = mpmath.sqrt(mpmath.fsum(g**2 for block in gradient.values() for g in block.ravel()))
            step = {name: (value / norm).astype(float) for name, value in gradient.items()}
        assert sum(np.sum(value**2) for value in step.values()) == pytest.approx(1, abs=1e-14)
        for name, value in step.items():
            found = traj[name][0] - traj[name][1]
            allowed = EPS * (100 + 4 * gap) + EPS * np.abs(state[name]).max()
            assert np.abs(found - value).max() <= allowed, (gap, name)


def test_signum_carries_the_unit_of_its_buffer(rng):
    """Buffer and gradient e-folds apart: after n steps the sign is that of sum beta^(n-s) g_s at 60 digits."""
    problem = ufm.UFM(3, 4, features=Given(rng.standard_normal((4, 3))))
    optimizer, decay = Signum(2.0, 0.5), ufm.Decoupled(0.01)
    traj = ufm.simulate(
        problem, optimizer, decay, steps=60, init=Given(300 * SimplexETF().draw(place(problem), rng))
    )
    assert traj.stats["exponents_from"] >= 0
    buffer = np.full((3, 4), mpmath.mpf(0))
    with mpmath.workdps(60):
        for t in range(60):
            state = {"H": traj["H"][t], "W1": traj["W"][t]}
            buffer = 0.5 * buffer + 0.5 * exact_gradient(problem, state, np.arange(3))["W1"]
            found = np.rint((0.98 * traj["W"][t] - traj["W"][t + 1]) / 2)
            assert np.array_equal(found, np.vectorize(mpmath.sign, otypes=[float])(buffer)), t


def place(problem):
    from ufm.initial import Place

    return Place(problem.last, problem.shapes[problem.last], problem.classes, problem.labels)


# --------------------------------------------------------------------------------------------- no compiler

INTERPRETED = """
import sys
import numpy as np
import ufm
from ufm.initial import Gaussian, SimplexETF, Zeros

soft = np.full((4, 4), 0.1) + 0.6 * np.eye(4)
losses = [ufm.CrossEntropy(), ufm.CrossEntropy(smoothing=0.1), ufm.CrossEntropy(targets=soft), ufm.MSE()]
rules = [ufm.GD(0.05), ufm.Momentum(0.02, 0.8, nesterov=True), ufm.SignGD(0.01), ufm.Signum(0.01, 0.7),
         ufm.Adam(0.01), ufm.NormalisedGD(0.05)]
found = []
for loss in losses:
    for rule in rules:
        for batch in (None, 4):
            problem = ufm.DUFM(4, 5, 2, (2, 1, 2, 1), loss=loss, bias=True)
            traj = ufm.simulate(problem, rule, ufm.Mixed(0.02, 0.3), steps=6, init=Gaussian(0.5), batch=batch)
            found += [traj.states.ravel(), traj.loss]
for rule in (ufm.SignGD(40.0), ufm.Signum(40.0, 0.3), ufm.Adam(40.0, 0.0, 0.0, 0.0), ufm.NormalisedGD(1.0)):
    problem = ufm.UFM(10, 10, features=SimplexETF())
    init = ufm.Given(2000 * np.eye(10)) if isinstance(rule, ufm.NormalisedGD) else Zeros()
    traj = ufm.simulate(problem, rule, ufm.Decoupled(5e-4), steps=20, init=init)
    assert traj.stats["exponents_from"] >= 0
    found += [traj.states.ravel() / 1e3, traj.loss]
np.save(sys.argv[1], np.concatenate(found))
"""


def test_kernels_run_without_the_compiler(python, tmp_path):
    """Interpreted kernels give the same numbers to 1e-12 over six steps."""
    python(INTERPRETED, arguments=[str(tmp_path / "compiled.npy")])
    python(INTERPRETED, {"NUMBA_DISABLE_JIT": "1"}, arguments=[str(tmp_path / "plain.npy")])
    compiled, plain = np.load(tmp_path / "compiled.npy"), np.load(tmp_path / "plain.npy")
    print(f"interpreted against compiled: worst difference {np.abs(compiled - plain).max():.1e}")
    assert np.abs(compiled - plain).max() <= 1e-12


# ------------------------------------------------------------------------------------------- users' kernels


def test_a_rule_without_a_reference_is_refused_by_the_twin():
    rule = ufm.Elementwise(lambda theta, g, m, v, lr, t, p: (theta - lr * g, m, v), 0.1)
    with pytest.raises(ValueError, match="no reference"):
        reference.update(rule, np.zeros(1), np.zeros(1), np.zeros(1), np.zeros(1), 0.1, 1)


def test_a_user_loss_with_a_wrong_residual_is_refused():
    def residual(Z, targets, R):
        R[:] = Z
        return np.sum(Z**2)

    with pytest.raises(UfmError, match="derivative"):
        ufm.UFM(3, 4, loss=residual)
