r"""Cross-entropy with unequal class sizes: which classes merge, and the convex problem behind it.

Model: F = (1/N) sum CE(W h_i + b, y_i) + lam_W/2 ||W||^2 + lam_H/2 ||H||^2 + lam_b/2 ||b||^2, n_k samples in class k,
D = diag(n_k), lam_Z = sqrt(lam_W lam_H). Hong and Ling (arXiv 2309.09725; no halves there, so their lam_Z is
2 sqrt(lam_W lam_H)): features of a class are equal at the optimum (NC1), and for widths from the rank of its solution
on it is the convex problem

    min over Z (K x K), b of  sum_k (n_k/N) CE(z_k + b, k) + lam_Z ||Z D^(1/2)||_* + lam_b/2 ||b||^2.

Merging rule. Classes of equal size n_g, two or more, are exchangeable, so Z = a (I - J/K_g) + coarse inside the group.
At a = 0 softmax is uniform inside the group and the derivative of the objective by a is
(K_g - 1)(lam_Z sqrt(n_g) - n_g/N), whatever the coarse part and the bias are. The objective is convex in a. Hence the
mean logits of the group are identical iff lam_Z >= sqrt(n_g)/N: any number of groups, with or without a bias, any
lam_b. For equal classes this is K kappa >= 1 with kappa = sqrt(n) lam_Z.

Judging a run. With distributions Q that are feasible in the dual (`ufm.theory._class_groups`) every state has

    F >= dual value + (1/N) sum_i KL(q_{y_i} || softmax(z_i)),

so by Pinsker's inequality and that of the means the average contrast (probability of the own class less that of the
others in the group) is within K_g/(2 (K_g - 1)) sqrt(2 (F - dual value) N/N_g) of the optimum's, N_g = K_g n_g.

Layer-peeled model (Fang, He, Long, Su): no decay but budgets (1/K) sum ||w_k||^2 <= E_W and
(1/K) sum_k (1/n_k) sum_i ||h_ki||^2 <= E_H. The same problem with ||Z||_* <= K E, E = sqrt(E_W E_H); a group merges iff
the multiplier of the constraint is at least n_g/N. See `peeled_curve`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ufm.checks import real, whole
from ufm.claims import Claim, Prediction, Source
from ufm.decay import per_block
from ufm.errors import IncompatibleError, invalid
from ufm.losses import CrossEntropy
from ufm.normalisation import other_features
from ufm.theory._class_groups import Groups, Means, Setting, groups_of, solve
from ufm.theory._lower_bound import at_least, logit_error, objective_error
from ufm.theory._recorded import PERTURBATION, finite_records, parts

if TYPE_CHECKING:
    from ufm.decay import Decay
    from ufm.problems import Problem
    from ufm.run import Run

HONG, FANG = "Hong, Ling, arXiv 2309.09725", "Fang, He, Long, Su, PNAS 2021"
GAP = 1e-8  # largest difference of objective and lower bound, as a share of the objective, that counts as solved
MARGIN = 0.01  # how far beyond its threshold the control takes a group


# ------------------------------------------------------------------ formulas, generic in their number type


def merging_threshold(size: Any, samples: Any, xp: Any = np) -> Any:
    """lam_Z = sqrt(lam_W lam_H) from which on classes of this size, two or more, are merged: sqrt(n_g)/N.

    Parameters
    ----------
    size, samples : number or ndarray, shape (...)
        Samples n_g of the class, and N of all classes.
    xp : module
        ``numpy`` or ``sympy``.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> round(float(merging_threshold(100, 3000)), 10)
    0.0033333333
    """
    return xp.sqrt(size) / samples


def critical_ratio(decay: Any, minority: Any, K_A: Any, K_B: Any, xp: Any = np) -> Any:
    """R* = (1/(lam_Z sqrt n_B) - K_B)/K_A: K_B classes of n_B are merged iff the others have R* n_B or more.

    Parameters
    ----------
    decay : number or ndarray, shape (...)
        lam_Z = sqrt(lam_W lam_H).
    minority : number or ndarray, shape (...)
        Samples n_B of a minority class.
    K_A, K_B : int or symbol
        Number of majority classes, of minority classes.
    xp : module
        ``numpy`` or ``sympy``.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> round(float(critical_ratio(0.005, 100, 5, 5)), 12)
    3.0
    """
    return (1 / (decay * xp.sqrt(minority)) - K_B) / K_A


def coarse_threshold(n_A: Any, n_B: Any, K_A: Any, K_B: Any, xp: Any = np) -> Any:
    """lam_Z at which two merged groups would meet, with a free bias: sqrt(K n_A n_B/N)/N.

    It lies between the merging thresholds of the two. The true one is shifted where a group is not merged yet.

    Parameters
    ----------
    n_A, n_B : number or ndarray, shape (...)
        Samples of a majority and of a minority class.
    K_A, K_B : int or symbol
        Number of majority classes, of minority classes.
    xp : module
        ``numpy`` or ``sympy``.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> float(coarse_threshold(4, 1, 5, 5).round(6))
    0.050596
    """
    samples = K_A * n_A + K_B * n_B
    return xp.sqrt((K_A + K_B) * n_A * n_B / samples) / samples


def buffer_sizes(decay: Any, new_samples: Any, classes: Any, xp: Any = np) -> tuple[Any, Any]:
    """Ends of the open interval of samples per old class that keep `classes` old classes apart.

    b samples of each are merged iff lam_Z >= sqrt(b)/(N_new + K_old b), so they are apart strictly between the
    squares of (1 -+ sqrt(1 - 4 lam_Z^2 K_old N_new))/(2 lam_Z K_old), the lower one written without cancellation; at
    no b where the root is not real (nan).

    Parameters
    ----------
    decay : number or ndarray, shape (...)
        lam_Z = sqrt(lam_W lam_H).
    new_samples : number or ndarray, shape (...)
        Samples N_new of the new classes.
    classes : int or symbol
        Number K_old of old classes.
    xp : module
        ``numpy`` or ``sympy``.

    Returns
    -------
    low, high : number or ndarray, shape (...)

    Examples
    --------
    >>> low, high = buffer_sizes(0.005, 1000, 5)
    >>> round(float(low), 3), round(float(high), 3)
    (34.315, 1165.685)
    """
    square = 1 - 4 * decay**2 * classes * new_samples
    upper = 1 + xp.sqrt(np.where(square < 0, np.nan, square)[()] if xp is np else square)
    return (2 * decay * new_samples / upper) ** 2, (upper / (2 * decay * classes)) ** 2


def group_cross_entropy(amplitude: Any, count: Any, others: Any, xp: Any = np) -> Any:
    """log(1 + (K_g - 1) e^-a + S e^{-a (1 - 1/K_g)}): loss of a sample at within-group amplitude a.

    Parameters
    ----------
    amplitude : number or ndarray, shape (...)
        a, own logit less that of another class of the group.
    count : int or symbol
        Classes K_g of the group.
    others : number or ndarray, shape (...)
        S, sum over all other classes of exp(their logit less the mean logit of the group).
    xp : module
        ``numpy`` or ``sympy``.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> round(float(group_cross_entropy(0.0, 2, 2.0)), 6), round(float(np.log(4)), 6)
    (1.386294, 1.386294)
    """
    return xp.log(1 + (count - 1) * xp.exp(-amplitude) + others * xp.exp(-amplitude * (1 - 1 / count)))


class PeeledPoint(NamedTuple):
    """A layer-peeled model at the threshold of its minority classes.

    Parameters
    ----------
    ratio : number or ndarray, shape (...)
        R_0 = n_A/n_B.
    budget : number or ndarray, shape (...)
        E = sqrt(E_W E_H).
    amplitude : number or ndarray, shape (...)
        a of the majority classes.
    margins : pair of number
        Mean logit of the own group less that of the other, for samples of A and of B.
    size : number or ndarray, shape (...)
        Singular value of the coarse part.

    Examples
    --------
    >>> round(float(peeled_curve(0.7, 5, 5).amplitude), 6)
    1.877038
    """

    ratio: Any  # R_0 = n_A/n_B
    budget: Any  # E = sqrt(E_W E_H)
    amplitude: Any  # a of the majority classes
    margins: tuple[Any, Any]  # mean logit of the own group less that of the other, for samples of A and of B
    size: Any  # singular value of the coarse part


def peeled_curve(angle: Any, K_A: Any, K_B: Any, xp: Any = np) -> PeeledPoint:
    """Ratio R_0 and budget E at which the minority merges in the layer-peeled model, by one parameter.

    The merged optimum has one amplitude a inside A and a coarse part s u (cos f, -sin f), u orthogonal to 1. Where the
    multiplier is n_B/N stationarity says, with c = cos f sqrt(K_B/K) and q = sin f sqrt(K_A/K),

        m_B = log(K_A (1 - q)/(K_B q)),     s = m_B K_B sqrt(K_A/K)/sin f,     m_A = s cos f sqrt(K/K_B)/K_A,
        a = K_A (m_A + log(K_A c/(K_B (1 - c)))),
        R_0 = c + (1 - c)(K_A - 1 + e^a)/K_A,     E = ((K_A - 1) a + s)/K.

    Parameters
    ----------
    angle : number or ndarray, shape (...)
        f in (0, asin sqrt(K_A/K)]; E = 0 and R_0 = 1 at the upper end, both grow without bound towards
        0.
    K_A, K_B : int or symbol
        Number of majority and of minority classes.
    xp : module
        ``numpy`` or ``sympy``.

    Returns
    -------
    PeeledPoint

    Examples
    --------
    >>> point = peeled_curve(0.7, 5, 5)
    >>> round(float(point.ratio), 6), round(float(point.budget), 6)
    (1.508226, 0.848694)
    """
    K, sine, cosine = K_A + K_B, xp.sin(angle), xp.cos(angle)
    c, q = cosine * xp.sqrt(K_B / K), sine * xp.sqrt(K_A / K)
    m_B = xp.log(K_A * (1 - q) / (K_B * q))
    size = m_B * K_B * xp.sqrt(K_A / K) / sine
    m_A = size * cosine * xp.sqrt(K / K_B) / K_A
    a = K_A * (m_A + xp.log(K_A * c / (K_B * (1 - c))))
    ratio = c + (1 - c) * (K_A - 1 + xp.exp(a)) / K_A
    return PeeledPoint(ratio, ((K_A - 1) * a + size) / K, a, (m_A, m_B), size)


def peeled_growth(K_A: Any, K_B: Any, xp: Any = np) -> Any:
    """Limit of log(R_0)/E for large budgets: K/(K_A - 1 + sqrt(K_B/K)).

    Parameters
    ----------
    K_A, K_B : int or symbol
        Number of majority classes, of minority classes.
    xp : module
        ``numpy`` or ``sympy``.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> round(float(peeled_growth(5, 5)), 6)
    2.124447
    """
    K = K_A + K_B
    return K / (K_A - 1 + xp.sqrt(K_B / K))


# ------------------------------------------------------------------------------------- layer-peeled model


def peeled_threshold(K_A: int, K_B: int, budget: float) -> float:
    """Ratio R_0 from which on the minority classes of the layer-peeled model are merged; inf beyond float64.

    Parameters
    ----------
    K_A, K_B : int
        Number of majority classes >= 1, and of minority classes >= 2.
    budget : float
        E = sqrt(E_W E_H) > 0.

    Returns
    -------
    float

    Raises
    ------
    InvalidProblemError
        For arguments outside these ranges.

    Examples
    --------
    >>> round(peeled_threshold(5, 5, 5**0.5), 3)
    12.192
    """
    from scipy.optimize import brentq

    whole("peeled_threshold.K_A", K_A, 1)
    whole("peeled_threshold.K_B", K_B, 2)
    if not real("peeled_threshold.budget", budget) > 0:
        raise invalid("peeled_threshold.budget", budget, "a finite number > 0")
    top = float(np.arcsin(np.sqrt(K_A / (K_A + K_B))))

    def excess(log_angle: float) -> float:
        with np.errstate(over="ignore"):
            return float(peeled_curve(np.exp(log_angle), K_A, K_B).budget) - budget

    low = np.log(top) - 1.0
    while excess(low) < 0:
        low -= 1.0
    log_angle = brentq(excess, low, np.log(top), xtol=1e-15, rtol=8.9e-16)
    with np.errstate(over="ignore"):
        return float(peeled_curve(np.exp(log_angle), K_A, K_B).ratio)


def peeled_setting(K_A: int, K_B: int, ratio: float, multiplier: float) -> Setting:
    """Layer-peeled model with this multiplier in place of the budget, as `_class_groups.solve` takes it.

    Parameters
    ----------
    K_A, K_B : int
        Number of majority classes, of minority classes.
    ratio : float
        n_A/n_B.
    multiplier : float
        Of the constraint on the nuclear norm.

    Returns
    -------
    Setting

    Examples
    --------
    >>> peeled_setting(2, 2, 3.0, 0.1).counts
    (2, 2)
    """
    minority = 1 / (K_A * ratio + K_B)
    return Setting((K_A, K_B), (ratio * minority, minority), (1.0, 1.0), multiplier)


def descend_peeled(
    K_A: int, K_B: int, ratio: float, E_W: float, E_H: float, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Minimise the layer-peeled model itself, by L-BFGS from a random start, each factor scaled onto its budget.

    It knows nothing of the convex problem: W is K x K, and so are the class means of H, majority classes first.

    Parameters
    ----------
    K_A, K_B : int
        Number of majority classes, of minority classes.
    ratio : float
        n_A/n_B.
    E_W, E_H : float
        Budgets of W and of H.
    seed : int
        Of the random start.

    Returns
    -------
    W, H : ndarray, shape (classes, classes)

    Examples
    --------
    >>> W, H = descend_peeled(2, 2, 1.0, 2.0, 0.5)
    >>> (W @ H).round(4)[0].tolist()  # m (I - J/K) with m = K E/(K - 1)
    [1.0, -0.3333, -0.3333, -0.3333]
    """
    from scipy.optimize import minimize
    from scipy.special import log_softmax

    K = K_A + K_B
    shares = np.repeat([ratio, 1.0], [K_A, K_B]) / (K_A * ratio + K_B)
    radii = np.sqrt(K * E_W), np.sqrt(K * E_H)

    def on_budgets(theta: np.ndarray) -> tuple[np.ndarray, ...]:
        return tuple(part / np.linalg.norm(part) for part in theta.reshape(2, K, K))

    def objective(theta: np.ndarray) -> tuple[float, np.ndarray]:
        (U, V), lengths = on_budgets(theta), np.linalg.norm(theta.reshape(2, -1), axis=1)
        log_p = log_softmax(radii[0] * radii[1] * U @ V, axis=0)
        residual = (np.exp(log_p) - np.eye(K)) * (shares * radii[0] * radii[1])
        slopes = residual @ V.T, U.T @ residual
        tangent = [(S - (S * X).sum() * X) / r for S, X, r in zip(slopes, (U, V), lengths, strict=True)]
        return -float(shares @ np.diag(log_p)), np.concatenate([part.ravel() for part in tangent])

    start = np.random.default_rng(seed).standard_normal(2 * K * K)
    options = {"maxiter": 30_000, "maxfun": 60_000, "ftol": 0.0, "gtol": 1e-12, "maxcor": 30}
    U, V = on_budgets(minimize(objective, start, jac=True, method="L-BFGS-B", options=options).x)
    return radii[0] * U, radii[1] * V


# ----------------------------------------------------------------------------------- problems of this package


def groups(problem: Problem) -> Groups:
    """Classes of equal size of a problem, largest first.

    Parameters
    ----------
    problem : UFM
        The problem.

    Returns
    -------
    Groups

    Examples
    --------
    >>> import ufm
    >>> groups(ufm.UFM(4, 4, per_class=(2, 20, 2, 20)))
    Groups(sizes=(20, 2), counts=(2, 2), members=((1, 3), (0, 2)))
    """
    return groups_of(problem.class_sizes)


def optimum(problem: Problem, decay: Decay | None) -> Means:
    """Class means at the global optimum, by groups, with a certified lower bound of the objective.

    The bound holds at every width; it is attained if the width is at least the rank of the means.

    Parameters
    ----------
    problem : UFM
        With cross-entropy against class labels, any class sizes, all blocks trained, with or without a bias.
    decay : Coupled
        Rates > 0 on W and H, >= 0 on b.

    Returns
    -------
    Means

    Raises
    ------
    InvalidProblemError, IncompatibleError
        For another problem, or rates so small that the gap exceeds 1e-8 of the objective (about 1e-9).

    Examples
    --------
    >>> import ufm
    >>> problem = ufm.UFM(10, 10, per_class=(500,) * 5 + (100,) * 5)
    >>> found = optimum(problem, ufm.Coupled(0.0033))
    >>> found.amplitudes.round(4).tolist(), found.gap < 1e-14
    ([2.7647, 0.082], True)
    """
    coupled, decoupled = per_block(decay, problem)
    reason = other_model(problem, coupled, decoupled)
    if reason is not None:
        raise IncompatibleError(
            f"minority_collapse: {reason}; allowed: a UFM with cross-entropy, coupled decay > 0 on W and H."
        )
    return _solved(_setting(problem, coupled))


def merged_groups(problem: Problem, decay: Decay | None) -> tuple[tuple[int, ...], ...]:
    """Classes with identical mean logits at the global optimum, by the merging rule.

    Parameters
    ----------
    problem, decay
        As in `optimum`; the width must be at least the rank of the optimum.

    Returns
    -------
    tuple of tuple of int
        One tuple for each point that classes have collapsed to, in the order of their first class.

    Examples
    --------
    >>> import ufm
    >>> problem = ufm.UFM(4, 4, per_class=(20, 20, 2, 2))
    >>> merged_groups(problem, ufm.Coupled(0.04)), merged_groups(problem, ufm.Coupled(0.03))
    (((0,), (1,), (2, 3)), ((0,), (1,), (2,), (3,)))
    """
    means, found = optimum(problem, decay), groups(problem)
    require_width("merged_groups", problem, means)
    points: list[tuple[int, ...]] = []
    met: dict[bytes, list[int]] = {}
    for members, amplitude, column in zip(found.members, means.amplitudes, means.coarse.T, strict=True):
        if amplitude > 0:
            points += [(k,) for k in members]
        else:  # groups of different sizes meet where the coarse part is 0
            met.setdefault((column + 0.0).tobytes(), []).extend(members)
    return tuple(sorted([*points, *(tuple(sorted(classes)) for classes in met.values())]))


def rank(problem: Problem, means: Means) -> int:
    """Rank of the class means of the logits.

    Parameters
    ----------
    problem : UFM
        The problem.
    means : Means
        Optimum of the problem, see `optimum`.

    Returns
    -------
    int

    Examples
    --------
    >>> import ufm
    >>> problem = ufm.UFM(4, 4, per_class=(20, 20, 2, 2))
    >>> rank(problem, optimum(problem, ufm.Coupled(0.05)))
    2
    """
    counts = np.array(groups(problem).counts)
    coarse = np.linalg.svd(means.coarse, compute_uv=False)
    return int((counts - 1)[means.amplitudes > 0].sum() + (coarse > 1e-10 * coarse.max(initial=0.0)).sum())


def require_width(where: str, problem: Problem, means: Means) -> None:
    """Refuse a width below the rank of the optimum, where the convex problem is only a lower bound.

    Parameters
    ----------
    where : str
        Who asks.
    problem : UFM
        The problem.
    means : Means
        Optimum of the problem, see `optimum`.

    Raises
    ------
    InvalidProblemError
        For a smaller width, in one sentence.

    Examples
    --------
    >>> import ufm
    >>> problem = ufm.UFM(4, 4, per_class=(20, 20, 2, 2))
    >>> require_width("optimum", problem, optimum(problem, ufm.Coupled(0.05)))
    """
    if problem.widths[0] < (least := rank(problem, means)):
        raise invalid(
            f"{where}.problem.width", problem.widths[0], f"at least the rank {least} of the optimum"
        )


def class_means(problem: Problem, means: Means) -> np.ndarray:
    """Class means of the logits without the bias, class by class, shape (classes, classes).

    Parameters
    ----------
    problem : UFM
        The problem.
    means : Means
        Optimum of the problem, see `optimum`.

    Returns
    -------
    ndarray, shape (classes, classes)

    Examples
    --------
    >>> import ufm
    >>> problem = ufm.UFM(4, 4, per_class=(20, 20, 2, 2))
    >>> class_means(problem, optimum(problem, ufm.Coupled(0.05))).round(2)[:, 2:].tolist()
    [[-0.2, -0.2], [-0.2, -0.2], [0.2, 0.2], [0.2, 0.2]]
    """
    found = groups(problem)
    label = np.empty(problem.classes, dtype=int)
    for g, members in enumerate(found.members):
        label[list(members)] = g
    same = label[:, None] == label
    centred = np.eye(problem.classes) - same / np.array(found.counts)[label]
    logits: np.ndarray = means.coarse[np.ix_(label, label)] + centred * means.amplitudes[label]
    return logits


def other_model(problem: Problem, coupled: Any, decoupled: Any) -> str | None:
    """Why the optimum of a problem with these rates is not that of this room, or None.

    Parameters
    ----------
    problem : UFM
        The problem.
    coupled, decoupled : mapping of str to float
        Coupled and decoupled decay rate of each block.

    Returns
    -------
    str or None

    Examples
    --------
    >>> import ufm
    >>> other_model(ufm.UFM(3, 4), {"W1": 0.1, "H": 0.0}, {"W1": 0.0, "H": 0.0})
    'no coupled decay acts on H, so that the optimum lies at infinity'
    """
    reason = other_features(problem)
    if reason is not None:
        return reason
    if problem.depth != 1:
        return f"the problem has {problem.depth} layers of weights, not one"
    if problem.loss != CrossEntropy():
        return f"the loss is {problem.loss!r}, not cross-entropy against class labels"
    if problem.frozen_values:
        return f"{', '.join(problem.frozen_values)} is frozen, and every block must be trained"
    for block in problem.trained:
        if decoupled[block]:
            return f"decoupled decay {decoupled[block]:g} acts on {block}, and is part of no objective"
        if block != "b" and not coupled[block]:
            return f"no coupled decay acts on {block}, so that the optimum lies at infinity"
    return None


def _setting(problem: Problem, coupled: Any, factor: float = 1.0) -> Setting:
    """The convex problem, at lam_Z times a factor."""
    found, N = groups(problem), problem.samples
    rate = float(np.sqrt(coupled[problem.last]) * np.sqrt(coupled["H"])) * factor
    shares, weights = tuple(n / N for n in found.sizes), tuple(float(np.sqrt(n)) for n in found.sizes)
    return Setting(found.counts, shares, weights, rate, coupled["b"] if problem.bias else None)


def _solved(setting: Setting) -> Means:
    with np.errstate(all="ignore"):
        means = solve(setting)
    if not means.gap <= GAP * means.value:
        allowed = (
            f"a number at which the optimum is certified to {GAP:g} (here {means.gap / means.value:.2g})"
        )
        raise invalid("minority_collapse: sqrt(lam_W lam_H)", setting.rate, allowed)
    return means


# ---------------------------------------------------------------------------------------- claims about runs


def _not_unequal(run: Run) -> str | None:
    """Why the optimum of the run's objective is not that of unequal classes, or None."""
    problem = run.problem
    reason = other_model(problem, run.coupled, run.decoupled)
    if reason is None and len(set(problem.class_sizes)) == 1:
        samples = "1 sample" if problem.class_sizes[0] == 1 else f"{problem.class_sizes[0]} samples"
        reason = f"all classes have {samples}, and the claim is about unequal sizes"
    return reason


def _no_group(run: Run) -> str | None:
    reason = _not_unequal(run)
    if reason is None and max(groups(run.problem).counts) == 1:
        reason = f"no two of the class sizes {run.problem.class_sizes} are equal, so that nothing merges"
    return reason


def _at_least_the_optimum(run: Run, error: float = 0.0) -> Prediction:
    """F >= the certified lower bound, times 1 + error."""
    least = _solved(_setting(run.problem, run.coupled)).bound
    return at_least(run, least * (1 + error), "optimum of the convex problem")


def _above_the_optimum(run: Run) -> Prediction:
    return _at_least_the_optimum(run, PERTURBATION[run.dtype])


def _contrasts(run: Run, opposite: bool = False) -> Prediction:
    """Mean contrast of every group of two classes or more, in units in which all share one bound.

    The perturbed statement takes, group by group, the contrast at a decay on the other side of its threshold.
    """
    from scipy.special import softmax

    problem, trajectory = run.problem, run.trajectory
    assert trajectory is not None
    found, kept = groups(problem), finite_records(run)
    means = _solved(_setting(problem, run.coupled))
    chosen = [g for g, count in enumerate(found.counts) if count > 1]
    observed = np.empty((len(kept), len(chosen)))
    for here, part in parts(run, kept):
        P = softmax(part.logits(), axis=1)
        observed[here] = np.stack([_mean_contrast(problem, P, found.members[g]) for g in chosen], axis=-1)
    counts, sizes = (np.array([of[g] for g in chosen]) for of in (found.counts, found.sizes))
    units = 2 * (counts - 1) / counts * np.sqrt(counts * sizes / problem.samples)
    predicted = [_contrast(problem, run.coupled, means, g, opposite) for g in chosen]
    excess = np.maximum(trajectory.loss[kept] - means.bound, 0.0) + objective_error(run, kept)
    bound = np.sqrt(2 * excess) + 4 * logit_error(run, kept) + 16 * problem.classes * np.finfo(np.float64).eps
    merged = ", ".join(str(found.sizes[g]) for g in chosen if means.amplitudes[g] == 0) or "none"
    quantity = f"contrast within groups of equal classes (sizes merged: {merged})"
    return Prediction(quantity, np.broadcast_to(units * predicted, observed.shape), units * observed, bound)


def _mean_contrast(problem: Problem, P: np.ndarray, members: tuple[int, ...]) -> np.ndarray:
    """Probability of the own class less that of the others in the group, mean over its samples, shape (records,)."""
    samples = np.flatnonzero(np.isin(problem.labels, members))
    own = P[:, problem.labels[samples], samples]
    inside = P[:, list(members)][:, :, samples].sum(axis=1)
    contrast: np.ndarray = (own - (inside - own) / (len(members) - 1)).mean(axis=1)
    return contrast


def _contrast(problem: Problem, coupled: Any, means: Means, g: int, opposite: bool) -> float:
    """Contrast of group g at the optimum, 0 by the rule where it is merged; or beyond its threshold."""
    merged = means.amplitudes[g] == 0
    if not opposite:
        return 0.0 if merged else float(means.contrasts[g])
    if not merged:
        return 0.0
    setting = _setting(problem, coupled)
    threshold = float(merging_threshold(groups(problem).sizes[g], problem.samples))
    return float(_solved(setting._replace(rate=(1 - MARGIN) * threshold)).contrasts[g])


def _opposite_contrasts(run: Run) -> Prediction:
    return _contrasts(run, opposite=True)


ROOM, FIGURE = "minority_collapse", "minority_collapse"

CLAIMS = (
    Claim(
        name="hong2023.convex",
        statement=(
            "UFM with cross-entropy, any class sizes, decay on W and H: F >= min over Z, b of sum (n_k/N) CE(z_k + "
            "b, k) + lam_Z ||Z D^(1/2)||_* + lam_b/2 ||b||^2, lam_Z = sqrt(lam_W lam_H), attained for widths from "
            "the rank on; a feasible dual point bounds it from below at every state and every width."
        ),
        source=Source(HONG, "convex form, certificate derived here", "known from the code and a summary"),
        room=ROOM,
        figure=FIGURE,
        layers={
            "symbolic": (
                "Gibbs' and the factors' inequality (K = 2..4, 2 x 2 to 3 x 3), norms by blocks for symbolic K_g"
            ),
            "simulation": "every recorded objective; duality gap of the solver below 1e-14 in the tests",
        },
        applies=_not_unequal,
        predict=_at_least_the_optimum,
        control=_above_the_optimum,
        rank=2,
    ),
    Claim(
        name="hong2023.merging",
        statement=(
            "Two or more classes of equal size n_g have identical mean logits at the optimum iff sqrt(lam_W lam_H) "
            ">= sqrt(n_g)/N: any number of groups, with or without a bias, any lam_b. A state's mean contrast "
            "within the group is within K_g/(2 (K_g-1)) sqrt(2 (F - F*) N/N_g) of the optimum's, which is 0 iff "
            "they are merged."
        ),
        source=Source(
            HONG,
            "threshold of minority collapse; the sharp rule and the bound derived here",
            "known from the code and a summary",
        ),
        room=ROOM,
        figure=FIGURE,
        layers={
            "symbolic": (
                "the rule for symbolic sizes and counts, given convexity; the bound by Pinsker's inequality, cited"
            ),
            "simulation": "every record within the bound; 24 group structures on both sides at 0.5 %",
        },
        applies=_no_group,
        predict=_contrasts,
        control=_opposite_contrasts,
        rank=3,
    ),
    Claim(
        name="ufm.merging_consequences",
        statement=(
            "From the rule: two groups merge beyond R* = (1/(lam_Z sqrt n_B) - K_B)/K_A; equal classes iff K kappa "
            ">= 1; a replay buffer of b samples keeps K_old classes apart from N_new new samples iff b lies "
            "strictly between two roots, at none if 4 lam_Z^2 K_old N_new >= 1; two merged groups meet, with a "
            "free bias, at lam_Z = sqrt(K n_A n_B/N)/N, between the thresholds of the two."
        ),
        source=Source(HONG, "corollaries of the merging rule", "derived here"),
        room=ROOM,
        figure=FIGURE,
        layers={"symbolic": "proved for symbolic sizes"},
    ),
    Claim(
        name="fang2021.minority_collapse",
        statement=(
            "Layer-peeled model, K_A classes of R n_B samples and K_B >= 2 of n_B: only E = sqrt(E_W E_H) matters; "
            "the minority is merged iff the multiplier of ||Z||_* <= K E is at least n_B/N, that is beyond a "
            "finite ratio R_0, and (E, R_0) run along an explicit curve; log(R_0)/E -> K/(K_A - 1 + sqrt(K_B/K))."
        ),
        source=Source(
            FANG,
            "minority collapse; the finite threshold and its curve derived here",
            "known from a summary, wording recalled",
        ),
        room=ROOM,
        figure=FIGURE,
        layers={
            "symbolic": "stationarity along the curve for symbolic K_A, K_B; that R_0 grows with E is measured",
            "simulation": "direct minimisation of the constrained model on both sides of R_0",
        },
    ),
)
