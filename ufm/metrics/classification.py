r"""Which solution a state is: zero, a known one (DNC, SRG, ...) or just of rank r, with the evidence.

What is compared. For every layer the Gram matrix of the class means of s(H_l), and the mean logits: K x K matrices A_i,
against those of the solution, B_i; for one layer also W W^T. Rotations of a layer, with the weights on both sides
turned along, change no Gram matrix; they are symmetries of linear layers and of H_1, and permutations of units those of
ReLU layers. In ReLU chains H_1 and what lies before an activation are left out: they differ among states of one loss.
Collapse has M_2 = c I as well as any positive semidefinite M_2 with c on the diagonal and nothing positive beside it:
s(M_2) and the nuclear norm, here the trace, are the same. Renumbering classes of equal size turns every B_i into
P B_i P^T with one P. The distance is

    d = min_P sqrt(mean_i ||A_i - P B_i P^T||_F^2/||B_i||_F^2)      over i with B_i not 0.

d = 0 is necessary for two states to be the same up to these symmetries. It is not sufficient: the Gram matrices are
blind to spread within classes (DNC1 sees it), and to a rotation of a ReLU layer that is no permutation. The
minimum over K! relabellings is sought (a beam over partial ones, then swaps), so the distance is an upper bound,
attained by `Distance.relabelling`; the sorted eigenvalues give a lower one, by the inequality of Hoffman and Wielandt
(singular values for the logits, by Mirsky's).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ufm.checks import real
from ufm.errors import invalid
from ufm.metrics.inputs import is_trajectory
from ufm.metrics.layers import RANK_TOLERANCE, dnc1, dnc2, dnc3, layer_grams, layer_means, layer_ranks
from ufm.metrics.simplex import gram_distance
from ufm.problems import Blocks, Problem

if TYPE_CHECKING:
    from ufm.decay import Decay
    from ufm.solutions import Solution

BEAM = 64  # partial relabellings that are followed


@dataclass(frozen=True, eq=False)
class Distance:
    """How far a state is from a solution, up to symmetries.

    Parameters
    ----------
    solution : str
        Its name.
    distance : float
        Relative distance of Gram matrices and mean logits, at the best relabelling found; of the mean logits alone,
        relative to the targets, from the zero solution.
    least : float
        No relabelling comes below this.
    relabelling : ndarray of int, shape (K,)
        Class k of the state is class relabelling[k] of the solution.
    excess : float
        Objective of the state minus that of the solution.

    Examples
    --------
    >>> import ufm
    >>> problem, decay = ufm.DUFM(classes=3, width=4, depth=2), ufm.Coupled(0.01)
    >>> solution = ufm.solutions.dnc(problem, decay)
    >>> [nearest] = classify_solution(problem, solution, decay, solutions=[solution]).distances
    >>> nearest.solution, nearest.distance < 1e-7
    ('DNC', True)
    """

    solution: str
    distance: float
    least: float
    relabelling: np.ndarray = field(repr=False)
    excess: float


@dataclass(frozen=True, eq=False)
class Classification:
    """Which solution a state is, and the evidence.

    Parameters
    ----------
    name : str
        "zero", the name of the nearest solution, "DNC" or "rank r".
    reason : str
        In one sentence.
    rank : int
        Rank of the class means before the last activation, of the logits for one layer.
    ranks_pre, ranks_post : ndarray of int, shape (L,)
        Ranks of the class means of all layers, before and behind the activation.
    dnc1, dnc2, dnc3 : ndarray, shape (L,)
        See `ufm.metrics.dnc1` (as a quotient of traces), `dnc2`, `dnc3`.
    simplex : ndarray, shape (L,)
        Distance of the Gram matrix of the centred class means behind the activation from a simplex, see
        `ufm.metrics.nc2`.
    tolerance : float
        Largest of these numbers at which neural collapse is said to hold.
    loss : float
        Objective, coupled decay included.
    distances : tuple of Distance
        From the solutions given, nearest first.

    Examples
    --------
    >>> import ufm
    >>> problem, decay = ufm.DUFM(classes=3, width=4, depth=2), ufm.Coupled(0.01)
    >>> found = classify_solution(problem, ufm.solutions.dnc(problem, decay), decay)
    >>> found.name, found.rank, found.frame
    ('DNC', 3, 'orthogonal frame')
    """

    name: str
    reason: str
    rank: int
    ranks_pre: np.ndarray
    ranks_post: np.ndarray
    dnc1: np.ndarray = field(repr=False)
    dnc2: np.ndarray = field(repr=False)
    dnc3: np.ndarray = field(repr=False)
    simplex: np.ndarray = field(repr=False)
    tolerance: float = field(repr=False)
    loss: float
    distances: tuple[Distance, ...]

    @property
    def frame(self) -> str:
        """What the class means of every layer form where classes are points: "orthogonal frame", "simplex" or ""."""
        if not (self.dnc1 <= self.tolerance).all():
            return ""
        if (self.dnc2 <= self.tolerance).all():
            return "orthogonal frame"
        return "simplex" if (self.simplex <= self.tolerance).all() else ""

    @property
    def collapse(self) -> str:
        """Whether neural collapse holds, in one sentence without a full stop."""
        if self.name == "zero":
            return "all classes are at zero"
        spread = f"spread within classes {self.dnc1.max():.2g}"
        if not (self.dnc1 <= self.tolerance).all():
            return f"no neural collapse: {spread}"
        if not self.frame:
            return f"classes are points ({spread}) but no simplex (distance {self.simplex.max():.2g})"
        off = self.dnc2.max() if self.frame == "orthogonal frame" else self.simplex.max()
        return f"neural collapse holds: {spread}, distance from an exact {self.frame} {off:.2g}"

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


def classify_solution(
    source: Any,
    state: Mapping[str, Any] | None = None,
    decay: Decay | None = None,
    *,
    solutions: Sequence[Solution] = (),
    tolerance: float = 1e-2,
    rank_tolerance: float = RANK_TOLERANCE,
) -> Classification:
    """Say which solution a state is: zero, one of those given, neural collapse, or of rank r.

    Parameters
    ----------
    source : Trajectory or Problem
        A run, of which the last record is looked at, or what was minimised.
    state : mapping of str to array_like, optional
        With a problem: the trained blocks by name, of the shapes in ``problem.shapes``, or a Solution.
    decay : Coupled, optional
        With a problem: its penalty is part of the objective. That of a run is its own.
    solutions : sequence of Solution
        With which the state is compared, such as ``(dnc(problem, decay), srg(problem, decay))``.
    tolerance : float
        Largest distance at which the state is a solution, and largest `dnc1`, `dnc2` of neural collapse.
    rank_tolerance : float
        See `ufm.metrics.layer_ranks`.

    Returns
    -------
    Classification
        "zero" if the mean logits are smaller than `tolerance` times the one-hot targets; else the nearest solution
        within `tolerance`; else "DNC" if in every layer DNC1 holds and the class means behind the activation are an
        orthogonal frame or, centred, a simplex; else "rank r".

    Raises
    ------
    InvalidProblemError
        For a state or solutions that do not fit the problem.

    Examples
    --------
    >>> import ufm
    >>> problem = ufm.DUFM(classes=3, width=4, depth=2)
    >>> state = {"H": np.eye(4)[:, :3], "W1": np.eye(4), "W2": np.eye(4)[:3]}
    >>> print(classify_solution(problem, state))
    DNC: class means of every layer are an orthogonal frame (DNC2 <= 0); rank 3
    """
    tolerance = real("classify_solution.tolerance", tolerance, 0.0)
    if is_trajectory(source):
        if state is not None or decay is not None:
            raise invalid("classify_solution", "a trajectory with a state or decay", "a trajectory alone")
        problem, decay, state = source.problem, source.run.decay, source.state(len(source) - 1)
    elif isinstance(source, Problem):
        problem = source
    else:
        raise invalid("classify_solution.source", source, "a trajectory, or a problem with a state")
    if state is None:
        raise invalid("classify_solution.state", None, "a state, arrays by block name, beside a problem")
    blocks = problem.unpack(problem.pack(getattr(state, "blocks", state)))
    before = layer_ranks(problem, blocks, tolerance=rank_tolerance).astype(int)
    behind = layer_ranks(problem, blocks, stage="post", tolerance=rank_tolerance).astype(int)
    spread, frame = dnc1(problem, blocks, "quotient"), dnc2(problem, blocks)
    logits = _mean_logits(problem, blocks)
    rank = int(before[-1]) if problem.depth > 1 else _rank(logits, rank_tolerance)
    loss = problem.value(blocks, decay)
    if not isinstance(solutions, Sequence) or isinstance(solutions, str):
        raise invalid("classify_solution.solutions", solutions, "a sequence of solutions of ufm.solutions")
    compared = [_distance(problem, blocks, loss, solution) for solution in solutions]
    distances = tuple(sorted(compared, key=lambda found: found.distance))
    means = layer_means(problem, blocks)
    with np.errstate(all="ignore"):
        simplex = np.array(
            [float(gram_distance((M - M.mean(axis=1, keepdims=True)).T, "code")) for M in means]
        )
    name, reason = _named(problem, logits, spread, frame, simplex, distances, rank, tolerance)
    return Classification(
        name=name,
        reason=reason,
        rank=rank,
        ranks_pre=before,
        ranks_post=behind,
        dnc1=spread,
        dnc2=frame,
        dnc3=dnc3(problem, blocks),
        simplex=simplex,
        tolerance=tolerance,
        loss=loss,
        distances=distances,
    )


def _named(
    problem: Problem,
    logits: np.ndarray,
    spread: np.ndarray,
    frame: np.ndarray,
    simplex: np.ndarray,
    distances: tuple[Distance, ...],
    rank: int,
    tolerance: float,
) -> tuple[str, str]:
    """Name and the sentence that says why."""
    size = float(np.linalg.norm(logits)) / np.sqrt(problem.classes)
    if size <= tolerance:
        return "zero", f"the mean logits have {size:.2g} of the norm of one-hot targets"
    if distances and distances[0].distance <= tolerance:
        best = distances[0]
        reason = (
            f"the distance is {best.distance:.2g} and the loss exceeds its by {best.excess:.2g}; rank {rank}"
        )
        return best.solution, reason
    collapsed = bool((spread <= tolerance).all())
    if collapsed and (frame <= tolerance).all():
        evidence = f"an orthogonal frame (DNC2 <= {frame.max():.2g})"
        return "DNC", f"class means of every layer are {evidence}; rank {rank}"
    if collapsed and (simplex <= tolerance).all():
        evidence = f"a simplex (NC2 <= {simplex.max():.2g})"
        return "DNC", f"centred class means of every layer are {evidence}; rank {rank}"
    nearest = f"; the nearest is {distances[0].solution} at {distances[0].distance:.2g}" if distances else ""
    return f"rank {rank}", f"no known solution is within {tolerance:g}{nearest}"


def _rank(A: np.ndarray, tolerance: float) -> int:
    s = np.linalg.svd(A, compute_uv=False)
    return int((s > tolerance * s[0]).sum())


def _mean_logits(problem: Problem, blocks: Blocks) -> np.ndarray:
    """Class means of the logits, shape (K, K)."""
    logits: np.ndarray = blocks["W"] @ layer_means(problem, blocks)[-1]
    if problem.bias:
        logits = logits + blocks["b"][:, None]
    return logits


def _matrices(problem: Problem, blocks: Blocks) -> np.ndarray:
    """The K x K matrices that are compared, shape (count, K, K): Gram matrices of layers, logits the last."""
    first = 1 if problem.activation == "relu" and problem.depth > 1 else 0
    classifier = [(blocks["W"] @ blocks["W"].T)[None]] if problem.depth == 1 else []
    return np.concatenate(
        [layer_grams(problem, blocks)[first:], *classifier, _mean_logits(problem, blocks)[None]]
    )


def _distance(problem: Problem, blocks: Blocks, loss: float, solution: Solution) -> Distance:
    """Distance of a state from one solution."""
    if not (hasattr(solution, "blocks") and hasattr(solution, "loss") and hasattr(solution, "name")):
        raise invalid("classify_solution.solutions", solution, "solutions such as those of ufm.solutions")
    K = problem.classes
    A = _matrices(problem, blocks)
    B = _matrices(problem, problem.unpack(problem.pack(solution.blocks)))
    excess = loss - solution.loss
    norms = np.linalg.norm(B, axis=(1, 2))
    if norms[-1] == 0.0:
        distance = float(np.linalg.norm(A[-1]) / np.sqrt(K))
        return Distance(solution.name, distance, distance, np.arange(K), excess)
    kept = norms > 0
    A, B = A[kept] / norms[kept, None, None], B[kept] / norms[kept, None, None]
    count = len(A)
    least = sum(
        np.sum((np.linalg.eigvalsh(a) - np.linalg.eigvalsh(b)) ** 2)
        for a, b in zip(A[:-1], B[:-1], strict=True)
    ) + np.sum((np.linalg.svd(A[-1], compute_uv=False) - np.linalg.svd(B[-1], compute_uv=False)) ** 2)
    relabelling = relabel(A, B) if len(set(problem.class_sizes)) == 1 else np.arange(K)
    distance = np.sqrt(_mismatch(A, B, relabelling) / count)
    return Distance(solution.name, float(distance), float(np.sqrt(least / count)), relabelling, excess)


def _mismatch(A: np.ndarray, B: np.ndarray, relabelling: np.ndarray) -> float:
    return float(np.sum((A - B[:, relabelling][:, :, relabelling]) ** 2))


def relabel(A: np.ndarray, B: np.ndarray) -> np.ndarray:
    """Permutation p with A[i, k, l] near B[i, p[k], p[l]] for all matrices i: the best that was found.

    A beam follows the BEAM best partial relabellings class by class; swaps of two classes improve its best one until
    none helps. If the matrices agree up to a relabelling it is found unless more than BEAM partial ones fit better.

    Parameters
    ----------
    A, B : ndarray, shape (count, K, K)

    Returns
    -------
    ndarray of int, shape (K,)

    Examples
    --------
    >>> B = np.arange(9.0).reshape(1, 3, 3)
    >>> p = np.array([2, 0, 1])
    >>> relabel(B[:, p][:, :, p], B).tolist()
    [2, 0, 1]
    """
    K = A.shape[-1]
    partial, costs = np.zeros((1, 0), int), np.zeros(1)
    diagonal = ((np.einsum("mkk->mk", A)[:, :, None] - np.einsum("mkk->mk", B)[:, None, :]) ** 2).sum(axis=0)
    for k in range(K):
        # B[m, j, p[l]] and its transpose, for every candidate j and partial relabelling p: (m, K, partial, k)
        rows = (A[:, k, None, None, :k] - B[:, :, partial]) ** 2
        columns = (A[:, :k, k][:, None, None, :] - np.swapaxes(B, 1, 2)[:, :, partial]) ** 2
        total = costs[:, None] + (rows + columns).sum(axis=(0, 3)).T + diagonal[k]
        np.put_along_axis(total, partial, np.inf, axis=1)
        best = np.argsort(total, axis=None, kind="stable")[: min(BEAM, np.isfinite(total).sum())]
        of, chosen = np.unravel_index(best, total.shape)
        partial = np.concatenate([partial[of], chosen[:, None]], axis=1)
        costs = total[of, chosen]
    found: np.ndarray = partial[0]
    value, improved = _mismatch(A, B, found), True
    while improved:
        improved = False
        for i in range(K):
            for j in range(i):
                swapped = found.copy()
                swapped[[i, j]] = swapped[[j, i]]
                other = _mismatch(A, B, swapped)
                if other < value * (1 - 1e-12):
                    found, value, improved = swapped, other, True
    return found
