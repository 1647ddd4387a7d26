"""Compiled kernels and their plain reference against `twin`, which works in 40 digits and shares no code with them.

Compared is every block after every step: the Frobenius norm of the difference over that of the twin's block. Every row
below says the same thing twice, once for `ufm` and once for the twin.
"""

import itertools

import numpy as np
import pytest
import twin
from twin import MP, Chain, Decay

import ufm
from ufm.epochs import batch_order
from ufm.kernels import reference

LIMIT = 1e-14  # of the norm of a block, at every step
STEPS = 50
K, WIDTH, PER_CLASS = 3, 2, 2
LABELS = (0, 0, 1, 1, 2, 2)
BY_CLASS = np.array([[0.5, 0.25, 0.125], [0.25, 0.75, 0.375], [0.25, 0.0, 0.75]])  # columns need not sum to 1
BY_SAMPLE = np.array([
    [0.75, 0.5, 0.125, 0.0, 0.25, 0.0], [0.125, 0.5, 0.75, 1.0, 0.25, 0.5], [0.125, 0.0, 0.125, 0.0, 0.5, 0.5],
])  # fmt: skip

LOSSES = {  # loss for ufm; kind, mean and targets of the twin for labels
    "ce": (ufm.CrossEntropy(), "ce", True, lambda labels: twin.onehot(labels, K)),
    "ce sum": (ufm.CrossEntropy(reduction="sum"), "ce", False, lambda labels: twin.onehot(labels, K)),
    "smoothed": (ufm.CrossEntropy(smoothing=0.1), "ce", True, lambda labels: twin.smoothed(labels, K, 0.1)),
    "soft by class": (
        ufm.CrossEntropy(targets=BY_CLASS), "ce", True, lambda labels: twin.exact(BY_CLASS[:, list(labels)]),
    ),
    "soft by sample": (
        ufm.CrossEntropy(targets=BY_SAMPLE, reduction="sum"), "ce", False, lambda labels: twin.exact(BY_SAMPLE),
    ),
    "mse": (ufm.MSE(), "mse", True, lambda labels: twin.onehot(labels, K)),
    "mse sum": (ufm.MSE(reduction="sum"), "mse", False, lambda labels: twin.onehot(labels, K)),
}  # fmt: skip
OPTIMIZERS = {
    "gd": (ufm.GD, (), twin.gradient_descent),
    "momentum": (ufm.Momentum, (0.8,), twin.heavy_ball),
    "nesterov": (lambda lr, beta: ufm.Momentum(lr, beta, nesterov=True), (0.8,), twin.nesterov),
    "signgd": (ufm.SignGD, (), twin.sign_descent),
    "signum": (ufm.Signum, (0.7,), twin.signum),
    "adam": (ufm.Adam, (0.9, 0.99, 1e-3), twin.adam),
    "adam, eps 0": (ufm.Adam, (0.8, 0.95, 0.0), twin.adam),
    "normalised": (ufm.NormalisedGD, (), twin.unit_steps),
}
SIGNS = ("signgd", "signum")
DECAYS = {
    "none": (None, {}, {}, "before"),
    "coupled": (ufm.Coupled(0.02), 0.02, {}, "before"),
    "coupled by block": (ufm.Coupled(W=0.05), {"W": 0.05}, {}, "before"),
    "decoupled": (ufm.Decoupled(0.3), {}, 0.3, "before"),
    "decoupled by block": (ufm.Decoupled(H=0.4), {}, {"H": 0.4}, "before"),
    "mixed, shrink before": (ufm.Mixed(0.02, 0.3), 0.02, 0.3, "before"),
    "mixed, shrink after": (ufm.Mixed(0.02, 0.3, shrink="after"), 0.02, 0.3, "after"),
}
RATE = 0.02


def start_of(problem, seed):
    """Blocks of numbers about 1/2, the same for both sides."""
    rng = np.random.default_rng(seed)
    return {name: 0.5 * rng.standard_normal(problem.shapes[name]) for name in problem.blocks}


def columns_of(block):
    """A bias is a column to the twin."""
    return block[:, None] if block.ndim == 1 else block


class Case:
    """The same run on both sides."""

    def __init__(self, loss, optimizer, decay, *, depth=1, width=WIDTH, bias=False, sizes=PER_CLASS, relu=False,
                 schedule=None, batch=None, frozen=(), seed=3):  # fmt: skip
        for_ufm, kind, mean, targets = LOSSES[loss]
        shape = {"classes": K, "width": width, "per_class": sizes, "loss": for_ufm, "bias": bias}
        deep = {"depth": depth, "activation": "relu" if relu else "identity"}
        build = (
            (lambda **fixed: ufm.DUFM(**shape, **deep, **fixed))
            if depth > 1
            else lambda **f: ufm.UFM(**shape, **f)
        )
        free = build()
        self.start = start_of(free, seed)
        self.problem = build(frozen={name: self.start[name] for name in frozen}) if frozen else free
        self.name = (
            f"{loss}, {optimizer}, {decay}, depth {depth}, bias {bias}, {schedule or RATE}, batch {batch}"
        )

        rule, hyper, self.rule_of_twin = OPTIMIZERS[optimizer]
        decay_of_ufm, *self.decay_of_twin = DECAYS[decay]
        self.rule = rule(schedule.lr_of_ufm if schedule else RATE, *hyper)
        self.hyper, self.schedule, self.signs = hyper, schedule, optimizer in SIGNS
        trained = {name: self.start[name] for name in self.problem.trained}
        self.traj = ufm.simulate(
            self.problem,
            self.rule,
            decay_of_ufm,
            steps=STEPS,
            init=ufm.Given(**trained),
            batch=batch,
            seed=seed,
        )
        labels = [k for k in range(K) for _ in range(sizes if isinstance(sizes, int) else sizes[k])]
        self.chain = lambda: Chain(depth, kind, targets(labels), mean, relu)
        self.last = f"W{depth}"
        self.batches = None
        if batch is not None:
            order = batch_order(self.traj.run, 0, STEPS)  # drawn by ufm; see the test of mini-batches
            self.batches = [[int(i) for i in row if i >= 0] for row in order]

    def by_block(self, rates):
        """Rates by block as the twin reads them."""
        if isinstance(rates, dict):
            return {self.last if name == "W" else name: rate for name, rate in rates.items()}
        return dict.fromkeys(self.problem.trained, rates)

    def path(self, start=None):
        """States of the twin."""
        coupled, decoupled, shrink = self.decay_of_twin
        rates = self.schedule.rates(STEPS) if self.schedule else [RATE] * STEPS
        start = {name: twin.exact(columns_of(block)) for name, block in (start or self.start).items()}
        self.coupled = self.by_block(coupled)
        decay = Decay(self.coupled, self.by_block(decoupled), shrink)
        direction = self.rule_of_twin(*self.hyper)
        return twin.path(self.chain(), start, self.problem.trained, direction, decay, rates, self.batches)

    def compared(self):
        """Records up to the first sign that round-off cannot decide."""
        first = self.traj.stats["first_undecided_step"]
        return STEPS + 1 if first < 0 else first + 1


class Drop:
    """A tenth of the rate from step 20 on, a hundredth from step 35 on."""

    lr_of_ufm = ufm.StepDecay(0.04, at=(20, 0.7), factor=0.1)

    @staticmethod
    def rates(steps):
        return [MP.mpf(0.04) * MP.mpf(0.1) ** ((t >= 20) + (t >= 35)) for t in range(steps)]


def deviation(states, path, trained, records):
    """Largest distance over blocks and the first records: the difference is taken in two floats, 32 digits."""
    worst = 0.0
    for name in trained:
        for ours, of_twin in zip(states[name][:records], path, strict=False):
            high = np.array([[float(x) for x in row] for row in of_twin[name]])
            low = np.array([[float(x - float(x)) for x in row] for row in of_twin[name]])
            worst = max(worst, np.linalg.norm((columns_of(ours) - high) - low) / np.linalg.norm(high))
    return worst


def deviations(case, path):
    """Of the compiled kernels and of the reference, and of objective and penalty where the twin has them."""
    trained, records = case.problem.trained, case.compared()
    yield deviation(case.traj, path, trained, records)
    yield deviation(reference.simulate(case.traj.run), path, trained, records)
    everything = range(case.problem.samples)
    for t in range(0, records, 10):
        fit, penalty = twin.fit(case.chain(), path[t], everything), twin.penalty(path[t], case.coupled)
        yield float(abs(case.traj.fit[t] - fit) / fit)
        yield (
            float(abs(case.traj.penalty[t] - penalty) / penalty)
            if penalty
            else float(case.traj.penalty[t] != 0)
        )


def checked(cases):
    """Hold all cases to the limit; every step is compared unless signs are undecided, and then at least one."""
    worst, where = 0.0, ""
    for case in cases:
        assert case.compared() == STEPS + 1 or (case.signs and case.compared() > 1), case.name
        found = max(deviations(case, case.path()))
        if not found <= worst:
            worst, where = found, case.name
    print(f"{worst:.1e} ({where})")
    assert worst <= LIMIT, where


ALL_DECAYS = [name for name in DECAYS if "by block" not in name]
GRID = list(itertools.product([name for name in LOSSES if name != "ce sum"], OPTIMIZERS))


def decided(*case):
    """A case of the grid: its start is such that round-off decides no sign, so that all steps are compared."""
    found = Case(*case)
    assert found.compared() == STEPS + 1, found.name
    return found


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_loss_and_optimizer_with_two_decays(optimizer):
    """Both kinds together, and one of the others in turn: each optimizer and each loss meets them all."""
    for i, (loss, name) in enumerate(GRID):
        if name == optimizer:
            others = [decay for decay in ALL_DECAYS if decay != "mixed, shrink before"]
            turn = others[(i + i // len(OPTIMIZERS)) % len(others)]
            checked([decided(loss, optimizer, "mixed, shrink before"), decided(loss, optimizer, turn)])


@pytest.mark.slow
@pytest.mark.parametrize(("loss", "optimizer"), GRID)
def test_every_loss_optimizer_and_decay(loss, optimizer):
    checked([decided(loss, optimizer, decay) for decay in ALL_DECAYS])


DEEP = {"depth": 3, "width": (2, 4, 3), "relu": True, "bias": True}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_deep_chains_schedules_batches_and_unequal_classes(optimizer):
    checked([
        Case("ce", optimizer, "mixed, shrink before", **DEEP),
        Case("mse", optimizer, "mixed, shrink after", **DEEP, schedule=Drop, batch=4),
        Case("smoothed", optimizer, "coupled", **{**DEEP, "relu": False}, sizes=(1, 3, 2)),
        Case("ce sum", optimizer, "decoupled by block", schedule=Drop, sizes=(3, 1, 2), batch=4),
        Case("mse", optimizer, "coupled by block", batch=1, frozen=("H",), bias=True),
        Case("ce", optimizer, "mixed, shrink after", frozen=("W1",), schedule=Drop),
    ])  # fmt: skip


def test_batches_are_shuffled_epochs_with_the_smaller_last_batch_kept():
    case = Case("ce", "gd", "none", batch=4)
    epochs = [sorted(a + b) for a, b in zip(case.batches[::2], case.batches[1::2], strict=True)]
    assert all(epoch == list(range(6)) for epoch in epochs)
    assert {len(batch) for batch in case.batches} == {4, 2}
    assert len({tuple(batch) for batch in case.batches}) > 10


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("loss", LOSSES)
def test_gradient_of_the_twin_is_the_derivative_of_its_objective(loss, relu):
    """Central differences in 40 digits: h = 1e-12 leaves 1e-24 and rounding of 1e-28."""
    _, kind, mean, targets = LOSSES[loss]
    chain = Chain(3, kind, targets(LABELS), mean, relu)
    problem = ufm.DUFM(K, (2, 4, 3), 3, PER_CLASS, bias=True)
    state = {name: twin.exact(columns_of(block)) for name, block in start_of(problem, 5).items()}
    samples, h = (0, 2, 3, 5), MP.mpf("1e-12")
    for name, slope in twin.gradient(chain, state, samples).items():
        for i, row in enumerate(slope):
            for j, value in enumerate(row):
                ends = []
                for step in (h, -h):
                    moved = {block: [list(numbers) for numbers in rows] for block, rows in state.items()}
                    moved[name][i][j] += step
                    ends.append(twin.fit(chain, moved, samples))
                assert abs((ends[0] - ends[1]) / (2 * h) - value) <= 1e-22, (name, i, j)


# ------------------------------------------------------------------------- a twin that is wrong is told apart


def ball_with_dampening(beta):
    return lambda g, memory, t: twin.averaged("m", beta, g, memory)


def look_ahead_along_the_old_buffer(beta):
    ball = twin.heavy_ball(beta)

    def direction(g, memory, t):
        old = memory.get("m", [MP.zero] * len(g))
        ball(g, memory, t)
        return [x + MP.mpf(beta) * m for x, m in zip(g, old, strict=True)]

    return direction


def eps_in_the_root(beta1, beta2, eps):
    def direction(g, memory, t):
        first = twin.averaged("m", beta1, g, memory)
        second = twin.averaged("v", beta2, [x * x for x in g], memory)
        return [
            m / twin.correction(beta1, t) / MP.sqrt(v / twin.correction(beta2, t) + MP.mpf(eps))
            for m, v in zip(first, second, strict=True)
        ]

    return direction


def kept_by_the_wrong_order(x, u, lr, rate, shrink):
    return MOVED(x, u, lr, rate, "before" if shrink == "after" else "after")


MOVED = twin.moved
WRONG = {
    "bias correction one step late": (
        "correction", lambda beta, t: 1 - MP.mpf(beta) ** (t + 1), ("ce", "adam", "none"),
    ),
    "no bias correction": ("correction", lambda beta, t: MP.one, ("ce", "adam", "none")),
    "decay after instead of before": ("moved", kept_by_the_wrong_order, ("ce", "momentum", "mixed, shrink before")),
    "decay before instead of after": ("moved", kept_by_the_wrong_order, ("mse", "signgd", "mixed, shrink after")),
    "coupled decay of another rate": (
        "with_coupled", lambda g, rate, x: g + rate * x * (1 + MP.mpf("1e-9")), ("ce", "adam", "coupled"),
    ),
    "another penalty": ("penalty", lambda state, coupled: MP.one / 3, ("ce", "gd", "coupled")),
    "smoothing over the other classes": (
        "smoothed",
        lambda labels, K, s: [[(1 - MP.mpf(s)) * y + MP.mpf(s) / (K - 1) * (1 - y) for y in row]
                              for row in twin.onehot(labels, K)],
        ("smoothed", "gd", "none"),
    ),
    "mean over all samples, not the batch": (
        "weight_of_sample", lambda chain, samples: MP.one / 6, ("ce", "gd", "none", {"batch": 4}),
    ),
    "ReLU on the features": (
        "activated", lambda chain, layer, H: [[max(x, MP.zero) for x in row] for row in H], ("mse", "gd", "none", DEEP),
    ),
    "slope of ReLU everywhere 1": (
        "slopes", lambda chain, layer, H: [[MP.one for _ in row] for row in H], ("mse", "gd", "none", DEEP),
    ),
    "dampening": (OPTIMIZERS, ("momentum", ball_with_dampening), ("ce", "momentum", "none")),
    "look ahead along the old buffer": (
        OPTIMIZERS, ("nesterov", look_ahead_along_the_old_buffer), ("ce", "nesterov", "none"),
    ),
    "eps inside the root": (OPTIMIZERS, ("adam", eps_in_the_root), ("ce", "adam", "none")),
    "sign without average": (OPTIMIZERS, ("signum", lambda beta: twin.sign_descent()), ("ce", "signum", "none")),
    "rates drop one step late": (
        Drop, ("rates", staticmethod(lambda steps: [0.04 * 0.1 ** ((t > 20) + (t > 35)) for t in range(steps)])),
        ("ce", "gd", "none", {"schedule": Drop}),
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", WRONG)
def test_a_mistake_of_the_twin_is_noticed(mistake, monkeypatch):
    where, what, (loss, optimizer, decay, *options) = WRONG[mistake]
    if isinstance(where, str):
        monkeypatch.setattr(twin, where, what)
    elif where is OPTIMIZERS:
        name, wrong = what
        monkeypatch.setitem(OPTIMIZERS, name, (*OPTIMIZERS[name][:2], wrong))
    else:
        monkeypatch.setattr(where, *what)
    case = Case(loss, optimizer, decay, **(options[0] if options else {}))
    assert max(deviations(case, case.path())) > 100 * LIMIT
