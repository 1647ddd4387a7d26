"""The strongly regular graph (SRG) states of the ReLU DUFM: rank about sqrt(2 K) before the last ReLU, K after it."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ufm.checks import choice, flag, whole
from ufm.errors import IncompatibleError, invalid
from ufm.losses import MSE
from ufm.problems import DUFM
from ufm.solutions.chain import Rates, balanced_pair, placed, rates_of, require_widths
from ufm.solutions.solution import Solution, check_problem, solution
from ufm.theory import strongly_regular_graph as graph
from ufm.theory.strongly_regular_graph import VARIANTS, Block, Minimum

if TYPE_CHECKING:
    from ufm.decay import Decay
    from ufm.problems import Problem


class _Part(NamedTuple):
    """A block of classes: features (p x classes), neurons (q x p) of unit Frobenius norm, and their scales."""

    features: np.ndarray
    neurons: np.ndarray
    minimum: Minimum


def srg(
    problem: Problem,
    decay: Decay | None,
    variant: str = "kneser",
    *,
    relaxed: bool = True,
    classes: int | None = None,
) -> Solution:
    """The SRG state of a ReLU DUFM with squared error.

    Its scales are the best ones. Many pre-activations are zero, on the kink of the ReLU, so that the gradient is not
    continuous at the state and does not vanish there.

    Parameters
    ----------
    problem : DUFM
        ReLU, MSE, depth >= 3, classes of equal size, all blocks trained, no bias.
    decay : Coupled
        A rate > 0 for every block.
    variant : {"kneser", "identity", "best"}
        Neurons of the layer before the last, see `ufm.theory.strongly_regular_graph`; "best" may need more than
        one neuron for each class.
    relaxed : bool
        Whether the last layer is the best one, a ridge, or the output is a multiple of the targets.
    classes : int, optional
        The first so many classes form the SRG, and the others a block of neural collapse; all classes by default.

    Returns
    -------
    Solution
        Its rank is that of the last hidden layer before its ReLU.

    Raises
    ------
    InvalidProblemError, IncompatibleError
        If the number of classes is no r(r-1)/2, a layer is too narrow, the decay is so strong that the state has
        shrunk to zero, or the problem is another one.

    Examples
    --------
    >>> import ufm
    >>> problem, decay = ufm.DUFM(classes=10, width=10, depth=4), ufm.Coupled(0.004)
    >>> found = srg(problem, decay)
    >>> found.rank, round(found.loss, 7), round(problem.value(found.blocks, decay), 7)
    (5, 0.0809113, 0.0809113)
    """
    check_problem("srg", problem)
    choice("srg.variant", variant, VARIANTS)
    flag("srg.relaxed", relaxed)
    K = problem.classes
    inside = whole("srg.classes", K if classes is None else classes, 3, K)
    if not isinstance(problem, DUFM) or problem.activation != "relu" or problem.depth < 3:
        raise IncompatibleError(f"srg: problem is {problem!r}; allowed: a DUFM with ReLU and depth >= 3.")
    rates = rates_of("srg", problem, decay, MSE)
    r = graph.vertices_of(inside)
    if r is None:
        raise invalid("srg: classes of the graph", inside, "r(r-1)/2 for some r, such as 3, 6, 10, 15, 21")
    design = graph.variant_design(r, variant)
    minimum = graph.relaxed_minimum if relaxed else graph.collapsed_minimum
    parts = [
        _Part(
            graph.incidence(r).astype(float),
            _neurons(r, design),
            minimum(graph.graph_block(r, variant), *rates, K),
        )
    ]
    if not parts[0].minimum.scale:
        raise invalid("srg.decay", decay, "a weaker decay: at this one the state has shrunk to zero")
    if inside < K:
        rest = graph.collapsed_block(K - inside)
        parts.append(_collapsed(rest, graph.collapsed_minimum(rest, *rates, K)))
    narrow, wide = (sum(len(getattr(part, field)) for part in parts) for field in ("features", "neurons"))
    require_widths("srg", problem, (narrow,) * (problem.depth - 1) + (wide,))
    rank = graph.last_rank(r, design) + (K - inside if parts[-1].minimum.scale else 0)
    name = f"SRG, {variant}" if relaxed else f"SRG, {variant}, output x I"
    return solution(name, problem, _arrays(problem, parts, rates), sum(p.minimum.loss for p in parts), rank)


def _neurons(r: int, design: dict[int, float]) -> np.ndarray:
    """One neuron for each set of vertices, + on it and - off it, with the weight of its size; unit Frobenius norm."""
    rows = []
    for size, weight in design.items():
        few = min(size, r - size)
        sets = list(combinations(range(r), few))
        signs = np.full((len(sets), r), -1.0 if few == size else 1.0)
        for row, chosen in zip(signs, sets, strict=True):
            row[list(chosen)] *= -1.0
        rows.append(np.sqrt(weight / (len(sets) * r)) * signs)
    return np.concatenate(rows)


def _collapsed(block: Block, minimum: Minimum) -> _Part:
    identity = np.eye(block.classes)
    return _Part(identity, identity / np.sqrt(block.classes), minimum)


def _arrays(problem: Problem, parts: list[_Part], rates: Rates) -> dict[str, np.ndarray]:
    """All blocks of the state: each part on the diagonal of every layer."""
    depth = problem.depth
    first, copies, before, last = [], [], [], []
    unit = np.sqrt(rates.samples * rates.features * rates.weights[0])
    for features, neurons, (_, share, scale, gain) in parts:
        size = share / (unit * np.linalg.norm(features, "nuc"))
        first.append(balanced_pair(size * features, rates, len(features)))
        copies.append(np.sqrt(share / len(features)) * np.eye(len(features)))
        before.append(np.sqrt(share) * neurons)
        last.append(_last_layer(np.maximum(neurons @ features, 0.0), scale, gain, problem.classes, rates))
    middle = {
        f"W{layer}": placed(
            problem, f"W{layer}", [part / np.sqrt(rates.weights[layer - 1]) for part in chosen]
        )
        for layer in range(2, depth)
        for chosen in [copies if layer < depth - 1 else before]
    }
    return {
        "H": placed(problem, "H", [H for _, H in first]),
        "W1": placed(problem, "W1", [W for W, _ in first]),
        **middle,
        problem.last: placed(problem, problem.last, last),
    }


def _last_layer(
    outputs: np.ndarray, scale: float, gain: float | None, classes: int, rates: Rates
) -> np.ndarray:
    """W_L over last features `scale` times `outputs`: the ridge, or the least one whose product is the gain times I."""
    if not scale:
        return np.zeros(outputs.T.shape)
    if gain is not None:
        return gain / scale * np.linalg.pinv(outputs)
    gram = scale**2 * outputs.T @ outputs + classes * rates.weights[-1] * np.eye(outputs.shape[1])
    return np.linalg.solve(gram, scale * outputs.T)
