r"""The two-valued path: over a frozen simplex ETF every elementwise optimizer keeps W_t = x_t I + y_t J.

Notation: H = c (I - J/K) frozen (c = 1/sqrt(K - 1) in theorems 3.3 and 3.4 of Zhao et al., arXiv 2602.16642v3;
``norm``), d = x + y the diagonal and o = y the off-diagonal entry of W, gap = c (d - o) the logit of the true class
minus that of any other. The factor of the sum over classes in the fit is ``samples_factor``: 1/K for the mean over
samples, whatever their equal number in each class, and that number for the sum. Then

    grad W = psi (J - K I):   psi off the diagonal, -(K - 1) psi on it,   psi = c samples_factor/(exp(gap) + K - 1).
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from ufm.claims import Claim, Prediction, Source
from ufm.errors import UfmError
from ufm.initial import draw
from ufm.losses import CrossEntropy
from ufm.normalisation import other_features
from ufm.theory._double_double import DoubleDouble
from ufm.theory._recorded import finite_records

if TYPE_CHECKING:
    from ufm.problems import UFM
    from ufm.reduced import Disturbances, Integrated
    from ufm.run import Run

PAPER = "Zhao, Cheng, Masarczyk, Lucchi, arXiv 2602.16642v3"


# ------------------------------------------------------------------ formulas, generic in their number type


def frame_norm(classes: Any, norm: str = "frobenius", xp: Any = np) -> Any:
    """c of the simplex ETF c (I - J/K): 1/sqrt(K - 1), or sqrt(K/(K - 1)) for unit columns.

    Parameters
    ----------
    classes : int or symbol
        Number K of classes.
    norm : {"frobenius", "columns"}
        What is 1: c sqrt(K - 1), or the norm of a column.
    xp : module
        ``numpy``, ``sympy`` or ``mpmath``.

    Returns
    -------
    number

    Examples
    --------
    >>> float(frame_norm(5))
    0.5
    """
    return (xp.sqrt(classes) if norm == "columns" else 1) / xp.sqrt(classes - 1)


def logit_gap(diagonal: Any, off_diagonal: Any, norm: Any) -> Any:
    """Logit of the true class minus that of any other, c (d - o).

    Parameters
    ----------
    diagonal, off_diagonal : number or ndarray, shape (...)
        Diagonal entry d of W, off-diagonal entry o.
    norm : number
        c of H = c (I - J/K).

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> logit_gap(3.0, -1.0, 0.5)
    2.0
    """
    return norm * (diagonal - off_diagonal)


def wrong_share(gap: Any, classes: Any, xp: Any = np) -> Any:
    """Probability of one wrong class, 1/(exp(gap) + K - 1).

    Parameters
    ----------
    gap : number or ndarray, shape (...)
        Logit of the true class minus that of any other.
    classes : int or symbol
        Number K of classes.
    xp : module
        ``numpy``, ``sympy`` or ``mpmath``.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> float(wrong_share(0.0, 4))
    0.25
    """
    if xp is not np:  # in this form for numbers that overflow: math's, at a gap >= 0
        small = xp.exp(-gap)
        return small / (1 + (classes - 1) * small)
    small = np.exp(-np.abs(gap))
    return np.where(np.asarray(gap) > 0, small / (1 + (classes - 1) * small), 1 / (small + classes - 1))[()]


def right_share(gap: Any, classes: Any, xp: Any = np) -> Any:
    """Probability of the true class, 1/(1 + (K - 1) exp(-gap)).

    Parameters
    ----------
    gap : number or ndarray, shape (...)
        Logit of the true class minus that of any other.
    classes : int or symbol
        Number K of classes.
    xp : module
        ``numpy``, ``sympy`` or ``mpmath``.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> float(right_share(0.0, 4))
    0.25
    """
    if xp is not np:
        return 1 / (1 + (classes - 1) * xp.exp(-gap))
    small = np.exp(-np.abs(gap))
    return np.where(np.asarray(gap) > 0, 1 / (1 + (classes - 1) * small), small / (small + classes - 1))[()]


def gradient_entries(
    gap: Any, classes: Any, norm: Any = None, samples_factor: Any = None, xp: Any = np
) -> tuple[Any, Any]:
    """Diagonal and off-diagonal entry of grad W on the path, -(K - 1) psi and psi.

    Parameters
    ----------
    gap : array_like, shape (...)
        Logit of the true class minus that of any other, as `logit_gap` returns it.
    classes : int
        Number K of classes.
    norm : float, optional
        c of H = c (I - J/K); 1/sqrt(K - 1) by default.
    samples_factor : float, optional
        Factor of the sum over classes in the fit; 1/K, the mean over samples, by default.
    xp : module
        ``numpy``, ``math`` (for a gap >= 0), ``sympy`` or ``mpmath``.

    Returns
    -------
    diagonal, off_diagonal : number or ndarray, shape (...)

    Examples
    --------
    >>> [float(x) for x in gradient_entries(0.0, 2, 1.0, 0.5)]
    [-0.25, 0.25]
    """
    c = frame_norm(classes, xp=xp) if norm is None else norm
    s = 1 / classes if samples_factor is None else samples_factor
    psi = s * c * wrong_share(gap, classes, xp)
    return -(classes - 1) * psi, psi


def hessian(gap: Any, classes: Any, norm: Any, samples_factor: Any, xp: Any = np) -> tuple[Any, Any, Any]:
    """Eigenvalues of the fit's Hessian by W on the path that are not 0, by what permuting the classes makes of them.

    With p the probability of a wrong class, q of the true one, they are c^2 s times

        K p q               along J - K I: W stays two-valued;
        p ((K - 1) q + p)   K - 1 of them: along diag(a) - (a 1^T + 1 a^T)/K with sum a = 0;
        p                   (K - 1)^2 - K of them: off the diagonal, without row or column sums.

    This is for K >= 3; for K = 2 the first is alone. The 2 K - 1 others are 0: 1 u^T shifts all logits of a sample,
    v 1^T moves none. For gap >= 0 the first is the largest.

    Parameters
    ----------
    gap : number or ndarray, shape (...)
        Logit of the true class minus that of any other.
    classes : int or symbol
        Number K of classes.
    norm : number
        c of H = c (I - J/K).
    samples_factor : number
        Factor s of the sum over classes in the fit.
    xp : module
        ``numpy``, ``sympy`` or ``mpmath``.

    Returns
    -------
    tuple of three number or ndarray, shape (...)

    Examples
    --------
    >>> [float(x) for x in hessian(0.0, 2, 2.0, 0.5)]
    [1.0, 1.0, 1.0]
    """
    p = wrong_share(gap, classes, xp)
    q = right_share(gap, classes, xp)
    factor = norm**2 * samples_factor * p
    return factor * classes * q, factor * ((classes - 1) * q + p), factor


def cross_entropy(gap: Any, classes: Any) -> Any:
    """Cross-entropy of one sample, log(1 + (K - 1) exp(-gap)).

    Parameters
    ----------
    gap : number or ndarray, shape (...)
        Logit of the true class minus that of any other.
    classes : int or symbol
        Number K of classes.

    Returns
    -------
    ndarray or float, shape (...)

    Examples
    --------
    >>> round(float(cross_entropy(0.0, 2)), 6)
    0.693147
    """
    gap = np.asarray(gap, dtype=float)
    small = np.exp(-np.abs(gap))
    above = np.log1p((classes - 1) * small)
    return np.where(gap > 0, above, np.log(small + classes - 1) - gap)[()]


def squared_norm(diagonal: Any, off_diagonal: Any, classes: Any) -> Any:
    """||W||_F^2 = K d^2 + K (K - 1) o^2.

    Parameters
    ----------
    diagonal, off_diagonal : number or ndarray, shape (...)
        Diagonal entry d of W, off-diagonal entry o.
    classes : int or symbol
        Number K of classes.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> squared_norm(3.0, -1.0, 3)
    33.0
    """
    return classes * diagonal**2 + classes * (classes - 1) * off_diagonal**2


def row_sum(diagonal: Any, off_diagonal: Any, classes: Any) -> Any:
    """Every entry of W^T 1: d + (K - 1) o, for any number type.

    Parameters
    ----------
    diagonal, off_diagonal : number or ndarray, shape (...)
        Diagonal entry d of W, off-diagonal entry o.
    classes : int or symbol
        Number K of classes.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> row_sum(3.0, -1.0, 3)
    1.0
    """
    return diagonal + (classes - 1) * off_diagonal


def nc0(diagonal: Any, off_diagonal: Any, classes: Any, xp: Any = np) -> Any:
    """alpha = ||W^T 1||^2/K = (d + (K - 1) o)^2; with numpy the sum is rounded once.

    Parameters
    ----------
    diagonal, off_diagonal : array_like, shape (...)
        The two values of W.
    classes : array_like of int, shape (...)
        Number K of classes.
    xp : module
        ``numpy``, or any other for the formula as it stands.

    Returns
    -------
    number or ndarray, shape (...)

    Examples
    --------
    >>> float(nc0(3.0, -1.0, 3))
    1.0
    """
    if xp is not np:
        return row_sum(diagonal, off_diagonal, classes) ** 2
    with np.errstate(over="ignore", invalid="ignore"):
        K = np.asarray(classes, dtype=np.float64)
        return row_sum(DoubleDouble.of(diagonal), DoubleDouble.of(off_diagonal), K).high ** 2


def opposite_values(weight: Any) -> tuple[Any, Any]:
    """Diagonal and off-diagonal entry of w (J - 2I), where scale-free rules without coupled decay stay from W_0 = 0.

    Parameters
    ----------
    weight : number or ndarray, shape (...)
        W.

    Returns
    -------
    diagonal, off_diagonal : number or ndarray, shape (...)

    Examples
    --------
    >>> opposite_values(-2.0)
    (2.0, -2.0)
    """
    return -weight, weight


def balanced_values(weight: Any, classes: Any) -> tuple[Any, Any]:
    """Diagonal and off-diagonal entry of w (J - K I), where linear rules stay from W_0 = 0.

    Parameters
    ----------
    weight : number or ndarray, shape (...)
        W.
    classes : int or symbol
        Number K of classes.

    Returns
    -------
    diagonal, off_diagonal : number or ndarray, shape (...)

    Examples
    --------
    >>> balanced_values(-1.0, 4)
    (3.0, -1.0)
    """
    return -(classes - 1) * weight, weight


def weights(diagonal: Any, off_diagonal: Any, classes: int) -> np.ndarray:
    """W = (d - o) I + o J as a matrix, shape (..., classes, classes).

    Parameters
    ----------
    diagonal, off_diagonal : number or ndarray, shape (...)
        Diagonal entry d of W, off-diagonal entry o.
    classes : int
        K.

    Returns
    -------
    ndarray, shape (..., classes, classes)

    Examples
    --------
    >>> weights(2.0, -1.0, 2).tolist()
    [[2.0, -1.0], [-1.0, 2.0]]
    """
    d, o = (np.asarray(value, dtype=float)[..., None, None] for value in (diagonal, off_diagonal))
    return np.where(np.eye(classes, dtype=bool), d, o)


# ------------------------------------------------------------------------------- hypotheses about runs


def frame_of(problem: UFM) -> float | None:
    """c > 0 if H is frozen with every sample at its class's column of c (I - J/K), to rounding; otherwise None.

    Rows beyond the K-th are zero, if there are any.

    Parameters
    ----------
    problem : UFM
        With frozen features.

    Returns
    -------
    float or None

    Examples
    --------
    >>> import ufm
    >>> frame_of(ufm.UFM(2, 3, features=[[1.0, -1.0], [-1.0, 1.0], [0.0, 0.0]]))
    2.0
    """
    H, K = problem.frozen_values["H"], problem.classes
    if len(H) < K:
        return None
    c = float(H[0, 0] - H[1, 0])
    exact = np.zeros(H.shape)
    exact[:K] = c * (np.equal.outer(np.arange(K), problem.labels) - 1.0 / K)
    # round-off of whoever built the frame
    return c if c > 0 and np.abs(H - exact).max() <= 8 * np.finfo(float).eps * c else None


def samples_factor_of(problem: UFM) -> float:
    """Factor of the sum over classes in the fit: 1/K for the mean over samples, their number in each class for the sum.

    Parameters
    ----------
    problem : UFM
        The problem.

    Returns
    -------
    float

    Examples
    --------
    >>> import ufm
    >>> samples_factor_of(ufm.UFM(4, 4, per_class=3))
    0.25
    """
    return 1.0 / problem.classes if problem.loss.reduction == "mean" else float(problem.class_sizes[0])


def two_values(W: np.ndarray) -> np.ndarray | None:
    """Diagonal and off-diagonal entry of a square matrix that has no others, or None.

    Parameters
    ----------
    W : ndarray, shape (classes, classes)
        The matrix.

    Returns
    -------
    ndarray, shape (2,), or None

    Examples
    --------
    >>> two_values(np.array([[3.0, -1.0], [-1.0, 3.0]])).tolist()
    [3.0, -1.0]
    """
    if not np.array_equal(W, weights(W[0, 0], W[0, 1], len(W))):
        return None
    return W[0, :2].copy()


def _start_of(run: Run) -> np.ndarray | None:
    return two_values(draw(run.problem, run.init, run.seed)["W1"])


def outside_the_setting(
    run: Run, what: str = "the two-valued path", equal_classes: bool = True
) -> str | None:
    """Why problem or batches are not those in which W may keep two values, or None; says nothing of optimizer or start.

    Parameters
    ----------
    run : Run
        The run in question.
    what : str
        The statement that needs the setting, to be named in the sentence.
    equal_classes : bool
        Whether it needs equal numbers of samples in the classes.

    Returns
    -------
    str or None

    Examples
    --------
    >>> import ufm
    >>> from ufm.run import Run
    >>> outside_the_setting(Run(ufm.UFM(3, 4), ufm.SignGD(0.1)))
    'trained are H, W1; the two-valued path is for H frozen and W1 trained'
    """
    problem, loss = run.problem, run.problem.loss
    if problem.depth != 1:
        return f"the model has {problem.depth} layers; {what} is for one"
    reason = other_features(problem)
    if reason is not None:
        return reason
    if problem.bias:
        return f"the logits have a bias; {what} is for none"
    if problem.trained != (problem.last,):
        return f"trained are {', '.join(problem.trained)}; {what} is for H frozen and {problem.last} trained"
    if not isinstance(loss, CrossEntropy):
        return f"the loss is {type(loss).__name__}; {what} is for cross-entropy"
    if loss.targets is not None:
        return f"the targets are soft; {what} is for one-hot targets"
    if loss.smoothing:
        return f"the label smoothing is {loss.smoothing:g}; {what} is for one-hot targets"
    if equal_classes and len(set(problem.class_sizes)) > 1:
        return (
            f"classes have from {min(problem.class_sizes)} to {max(problem.class_sizes)} samples; {what} is for "
            "equal ones"
        )
    if frame_of(problem) is None:
        return (
            f"H is not c (I - J/K) with c > 0, a column for each sample and at most rows of zeros below; {what} is "
            "for this simplex ETF in its own coordinates"
        )
    if run.in_batches:
        return f"batches hold {run.batch} of {problem.samples} samples; {what} is for the gradient over all"
    return None


def _hypotheses(run: Run) -> str | None:
    problem = run.problem
    reason = outside_the_setting(run)
    if reason is not None:
        return reason
    if problem.widths[0] != problem.classes:
        return f"H has width {problem.widths[0]}; a two-valued W needs that of the simplex ETF, {problem.classes}"
    if not run.optimizer.elementwise:
        name = type(run.optimizer).__name__
        return f"{name} does not treat each entry of W alone, as the two-valued form needs"
    if run.dtype != "float64":
        return f"the run is in {run.dtype}; the reduced recursion is evaluated in float64"
    try:
        start = _start_of(run)
    except UfmError as error:
        return f"the start cannot be drawn: {error}"
    if start is None:
        return f"the start {run.init!r} is not of the form x I + y J"
    return None


# ------------------------------------------------------------------------------- predictions about runs

WRONG_RATES = 1e-6  # relative error of all rates that a control carries
RANDOM_COPIES, PERIOD = 8, 127  # copies with random signs for each response, and steps until these repeat
LOST = 0.01  # share of max|W| beyond which deviations are not small
RANDOM_FACTOR = 4.0  # largest of all K^2 entries over the largest of a few copies


class _Copies(NamedTuple):
    disturbances: Disturbances
    groups: tuple[tuple[float, tuple[tuple[int, ...], ...]], ...]  # weight, and copies as tuples of lanes


@lru_cache(maxsize=16)
def _copies(buffers: int) -> _Copies:
    """Disturbed copies of the recursion.

    For each independent part of a deviation (two-valued, rows and columns, entries) and each of its sources (a
    value of the state, of the gradient, of a buffer) two copies have that source disturbed with one sign at every
    step; others have all sources of the part disturbed at random.
    """
    from ufm.kernels.reduced import ALIKE, COLUMNS, ENTRIES, ROWS
    from ufm.reduced import Disturbances

    # kinds of the lanes that a copy takes, and its values as (lane, 0 for the diagonal and 1 off it)
    parts = (
        (1.0, (ALIKE,), ((0, 0), (0, 1))),
        (2.0, (ROWS, COLUMNS), ((0, 0), (0, 1), (1, 1))),
        (2.0, (ENTRIES,), ((0, 1),)),
    )
    rng = np.random.default_rng(0)
    kinds, columns, groups = [ALIKE], [np.zeros((PERIOD, 4, 2))], []
    for weight, lanes, values in parts:
        sources = [(kind, *value) for kind in range(2 + buffers) for value in values]
        patterns = [[(source, np.full(PERIOD, sign)) for sign in (1.0, -1.0)] for source in sources]
        chosen = [[[pattern] for pattern in both] for both in patterns]
        chosen.append([[(s, rng.choice([-1.0, 1.0], PERIOD)) for s in sources] for _ in range(RANDOM_COPIES)])
        for number, group in enumerate(chosen):
            members = []
            for copy in group:
                signs = np.zeros((len(lanes), PERIOD, 4, 2))
                for (kind, lane, entry), pattern in copy:
                    signs[lane, :, kind, entry] = pattern
                members.append(tuple(range(len(kinds), len(kinds) + len(lanes))))
                kinds += lanes
                columns += list(signs)
            factor = RANDOM_FACTOR if number == len(sources) else 1.0
            groups.append((weight * factor, tuple(members)))
    table = np.stack(columns, axis=-1).reshape(PERIOD, -1)
    return _Copies(Disturbances(np.array(kinds, np.int64), table), tuple(groups))


def round_off_bound(states: np.ndarray, groups: Any) -> np.ndarray:
    """How far round-off may carry an entry of a simulated W from the recursion, from disturbed copies of it.

    With eps = 2^-52, an operation of a copy is disturbed by eps (|before| + |after|) in the state and the buffers,
    and by eps (K + 16 + 8 c (|d| + |o|)) of the gradient, whose logits are sums of K terms. Disturbances of one sign
    at every step stand for the round-off of equal operations, and add over their sources; random ones stand for all
    else. Deviations off the two-valued matrices may grow where those within do not, so they have copies of their own.
    An error model, not a theorem.

    Parameters
    ----------
    states : ndarray, shape (records, 2, lanes)
        Diagonal and off-diagonal values of the undisturbed run (lane 0) and of its copies.
    groups : sequence of (weight, copies)
        Each copy a tuple of lanes, whose off-diagonal deviations add. Copies of a group count with the largest of
        their deviations, and the groups add with their weights.

    Returns
    -------
    ndarray, shape (records,)
        Never falls: a sign that was decided otherwise may show later. Infinite once a copy has left the run by more
        than the share `LOST` of max|W|: then the deviations are no longer small, and the model says nothing.

    Examples
    --------
    >>> states = np.array([[[1.0, 1.0 + 1e-12], [-1.0, -1.0]]])  # one record: a run and one copy of it
    >>> bool(1e-12 < round_off_bound(states, [(1.0, [(1,)])])[0] < 1.01e-12)
    True
    """
    with np.errstate(invalid="ignore", over="ignore"):
        deviations = np.abs(states - states[:, :, :1])
        total = 4 * np.finfo(float).eps * np.abs(states[:, :, 0]).max(axis=1)
        for weight, copies in groups:
            sums = [deviations[:, :, list(lanes)].sum(axis=2).max(axis=1) for lanes in copies]
            total = total + weight * np.max(sums, axis=0)
        largest = np.maximum.accumulate(np.abs(states[:, :, 0]).max(axis=1))
        total = np.where(total <= LOST * largest, total, np.inf)
    return np.maximum.accumulate(total)


_judged: WeakKeyDictionary[Any, tuple[Integrated, np.ndarray]] = WeakKeyDictionary()


def _recursion(run: Run, disturbances: Disturbances | None = None, error: float = 0.0) -> Integrated:
    """The reduced run in the setting and from the start of a run that `_hypotheses` has accepted."""
    from ufm.reduced import ALONE, Setting, integrate_symmetric

    problem, start = run.problem, _start_of(run)
    c = frame_of(problem)
    assert c is not None
    assert start is not None
    setting = Setting(problem.classes, c, samples_factor_of(problem))
    return integrate_symmetric(run, setting, start, disturbances=disturbances or ALONE, error=error)


def _recursion_and_bound(run: Run) -> tuple[Integrated, np.ndarray]:
    """The reduced run and its bound; kept for as long as the trajectory lives, for the control asks too."""
    found = _judged.get(run.trajectory)
    if found is None:
        copies = _copies(run.optimizer.buffers)
        together = _recursion(run, copies.disturbances)
        alone = together._replace(states=together.states[:, :, :1].copy())
        found = _judged[run.trajectory] = (alone, round_off_bound(together.states, copies.groups))
    return found


def _path_prediction(run: Run, error: float = 0.0) -> Prediction:
    """W_t against the two-scalar recursion, with all learning and decay rates multiplied by 1 + error.

    A run or recursion that leaves the finite numbers is judged at the records before. Where round-off has taken over
    by the last of them, no NC0 is predicted.
    """
    kept, trajectory = finite_records(run), run.trajectory
    assert trajectory is not None
    found, bound = _recursion_and_bound(run)
    if error:
        found = _recursion(run, error=error)
    _, rows, places = np.intersect1d(found.steps[: len(bound)], trajectory.steps[kept], return_indices=True)
    kept, K = kept[places], run.problem.classes
    d, o = found.states[rows, 0, 0], found.states[rows, 1, 0]
    bound = bound[rows]
    alpha = nc0(d, o, K) if len(bound) and np.isfinite(bound[-1]) else None
    return Prediction("W_t, against its two values", weights(d, o, K), trajectory["W"][kept], bound, alpha)


def _perturbed_path(run: Run) -> Prediction:
    return _path_prediction(run, WRONG_RATES)


# ------------------------------------------------------------------------------------------------- claims

CLAIMS = (
    Claim(
        name="ufm.symmetric_path",
        statement=(
            "H frozen at c (I - J/K), one-hot cross-entropy, equal classes, W_0 = x I + y J: under every elementwise "
            "optimizer and every decay W_t = (d_t - o_t) I + o_t J, and (d_t, o_t) is the same optimizer's run on two "
            "scalars with gradient (-(K-1) psi, psi), psi = c s/(exp(c (d - o)) + K - 1), s = 1/K for the mean."
        ),
        source=Source(
            "this package", "contains the setting of theorems 3.3 and 3.4 of Zhao et al.", "derived here"
        ),
        room="symmetric_path",
        layers={
            "symbolic": "proved for symbolic K: gradient, and its invariance under every elementwise step",
            "simulation": "each run is judged against copies of the recursion that are disturbed at every operation",
        },
        applies=_hypotheses,
        predict=_path_prediction,
        control=_perturbed_path,
        rank=10,
    ),
    Claim(
        name="ufm.adam_is_signgd",
        statement=(
            "Adam with beta1 = beta2 = eps = 0 is SignGD step by step, on any problem and with any decay: "
            "mhat/sqrt(vhat) = sign(g). In floating point bit for bit, as long as g^2 neither underflows nor overflows "
            "(1.5e-154 < |g| < 1.3e154) or g = 0."
        ),
        source=Source("this package", "update rules of Adam and SignGD", "derived here"),
        room="symmetric_path",
        layers={
            "symbolic": "proved from the update rules that the simulator compiles",
            "simulation": "equal bit for bit on full problems, random starts, mini-batches",
        },
    ),
    Claim(
        name="ufm.adamw_symmetric_path",
        statement=(
            "On the two-valued path from W_0 = 0 without coupled decay, SignGD, Signum and Adam with eps = 0 keep "
            "W_t = w_t (J - 2I) at every momentum, decoupled decay and schedule, so that alpha_t = ((K - 2) w_t)^2: "
            "with w_t off 0, NC0 vanishes for K = 2 alone."
        ),
        source=Source(
            "this package", "extends theorem 3.3 of Zhao et al. to Signum and AdamW", "derived here"
        ),
        room="symmetric_path",
        layers={
            "symbolic": "proved for symbolic K from the compiled update rules, by induction over steps",
            "simulation": "d_t + o_t = 0 to round-off",
        },
    ),
    Claim(
        name="ufm.gd_symmetric_path",
        statement=(
            "On the two-valued path from W_0 = 0, GD and momentum (Nesterov too) keep W_t = w_t (J - K I) under every "
            "decay and schedule, so that alpha_t = 0."
        ),
        source=Source("this package", "the row-sum law from m_0 = 0", "derived here"),
        room="symmetric_path",
        layers={
            "symbolic": "proved for symbolic K from the compiled update rules, by induction over steps",
            "simulation": "alpha_t = 0 to round-off",
        },
    ),
    Claim(
        name="ufm.symmetric_path_hessian",
        statement=(
            "On the two-valued path the Hessian of the fit by W has the eigenvalues c^2 s p times K q (once, along the "
            "path), (K - 1) q + p (K - 1 times), 1 ((K - 1)^2 - K times) and 0 (2 K - 1 times), q = 1 - (K - 1) p, for "
            "K >= 3; for K = 2 the first alone is not 0. The first is the largest iff gap >= 0."
        ),
        source=Source(
            "this package", "second derivative of cross-entropy over a simplex ETF", "derived here"
        ),
        room="symmetric_path",
        layers={
            "symbolic": "eigenvectors, eigenvalues and multiplicities proved for K = 3..5; order for symbolic K"
        },
    ),
)
