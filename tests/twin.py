"""The training dynamics once more: slow, in 40 digits, from the definitions, with no code of `ufm`.

    H_1 = H,   H_{l+1} = W_l s(H_l),   Z = W_L s(H_L) + b 1^T,   s = identity or ReLU, never on H_1 or Z
    fit = mean (or sum) over samples of  -sum_k y_k log softmax(z)_k   or   |z - y|^2/2
    objective = fit + sum over blocks of  coupled/2 |B|^2

A matrix is a list of its rows, a bias a matrix of one column, a state a mapping of names to matrices. Numbers come in
as floats, which are exact, and stay in 40 digits. The gradient is written out here; `tests/test_twin.py` holds it
against differences of the objective.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mpmath

MP = mpmath.MPContext()
MP.dps = 40
ONE = MP.mpf(1)

Matrix = list[list[Any]]
State = dict[str, Matrix]


def exact(rows: Any) -> Matrix:
    """A matrix of floats in 40 digits."""
    return [[MP.mpf(float(x)) for x in row] for row in rows]


def product(A: Matrix, B: Matrix) -> Matrix:
    """A B."""
    columns = transposed(B)
    return [[MP.fdot(row, column) for column in columns] for row in A]


def transposed(A: Matrix) -> Matrix:
    """Transpose of A."""
    return [list(column) for column in zip(*A, strict=True)]


def norm(A: Matrix) -> Any:
    """Root of the sum of squares."""
    return MP.sqrt(MP.fsum((x for row in A for x in row), squared=True))


# --------------------------------------------------------------------------------------------------- targets


def onehot(labels: Sequence[int], classes: int) -> Matrix:
    """Column i is 1 at the class of sample i, else 0."""
    return [[MP.mpf(k == label) for label in labels] for k in range(classes)]


def smoothed(labels: Sequence[int], classes: int, s: float) -> Matrix:
    """(1 - s) onehot + s/K."""
    s = MP.mpf(s)
    return [[(1 - s) * y + s / classes for y in row] for row in onehot(labels, classes)]


# ------------------------------------------------------------------------------------------------- objective


@dataclass(frozen=True)
class Chain:
    """What is minimised: depth, loss ("ce" or "mse"), mean or sum over samples, targets by sample, ReLU or not."""

    depth: int
    loss: str
    targets: Matrix
    mean: bool = True
    relu: bool = False


def activated(chain: Chain, layer: int, H: Matrix) -> Matrix:
    """s(H_l): what layer l reads."""
    if layer == 1 or not chain.relu:
        return H
    return [[max(x, MP.zero) for x in row] for row in H]


def slopes(chain: Chain, layer: int, H: Matrix) -> Matrix:
    """s'(H_l), 0 at a kink."""
    if layer == 1 or not chain.relu:
        return [[ONE for _ in row] for row in H]
    return [[ONE if x > 0 else MP.zero for x in row] for row in H]


def layers(chain: Chain, state: State, samples: Sequence[int]) -> list[Matrix]:
    """H_1 ... H_L and Z of the given samples."""
    found = [[[row[i] for i in samples] for row in state["H"]]]
    for layer in range(1, chain.depth + 1):
        found.append(product(state[f"W{layer}"], activated(chain, layer, found[-1])))
    if "b" in state:
        found[-1] = [[z + b for z in row] for row, [b] in zip(found[-1], state["b"], strict=True)]
    return found


def weight_of_sample(chain: Chain, samples: Sequence[int]) -> Any:
    """1/(number of samples) where the loss is a mean."""
    return ONE / len(samples) if chain.mean else ONE


def fit(chain: Chain, state: State, samples: Sequence[int]) -> Any:
    """Loss over the given samples."""
    total = MP.zero
    for z, i in zip(transposed(layers(chain, state, samples)[-1]), samples, strict=True):
        y = [row[i] for row in chain.targets]
        if chain.loss == "mse":
            total += MP.fsum((zk - yk) ** 2 for zk, yk in zip(z, y, strict=True)) / 2
        else:
            partition = MP.log(MP.fsum(MP.exp(zk) for zk in z))
            total += MP.fsum(yk * (partition - zk) for zk, yk in zip(z, y, strict=True))
    return total * weight_of_sample(chain, samples)


def residual(chain: Chain, Z: Matrix, samples: Sequence[int]) -> Matrix:
    """Derivative of the fit by the logits."""
    columns = []
    for z, i in zip(transposed(Z), samples, strict=True):
        y = [row[i] for row in chain.targets]
        if chain.loss == "mse":
            columns.append([zk - yk for zk, yk in zip(z, y, strict=True)])
        else:
            e = [MP.exp(zk) for zk in z]
            mass = MP.fsum(y) / MP.fsum(e)
            columns.append([ek * mass - yk for ek, yk in zip(e, y, strict=True)])
    weight = weight_of_sample(chain, samples)
    return [[weight * x for x in row] for row in transposed(columns)]


def gradient(chain: Chain, state: State, samples: Sequence[int]) -> State:
    """Derivative of the fit by every block; features of other samples have 0."""
    *inputs, Z = layers(chain, state, samples)
    R = residual(chain, Z, samples)
    found = {"b": [[MP.fsum(row)] for row in R]} if "b" in state else {}
    for layer in range(chain.depth, 0, -1):
        H = inputs[layer - 1]
        found[f"W{layer}"] = product(R, transposed(activated(chain, layer, H)))
        R = product(transposed(state[f"W{layer}"]), R)
        R = [
            [r * s for r, s in zip(*rows, strict=True)]
            for rows in zip(R, slopes(chain, layer, H), strict=True)
        ]
    found["H"] = [[MP.zero for _ in row] for row in state["H"]]
    for row, values in zip(found["H"], R, strict=True):
        for i, value in zip(samples, values, strict=True):
            row[i] = value
    return found


def penalty(state: State, coupled: Mapping[str, float]) -> Any:
    """Sum of coupled/2 |B|^2."""
    return MP.fsum(MP.mpf(lam) / 2 * norm(state[name]) ** 2 for name, lam in coupled.items())


# ------------------------------------------------------------------------------------------------ optimizers
# Each is built from its hyper-parameters and makes the direction u of  theta <- theta - lr u  out of the list of all
# coordinates' gradients, its memory (a dict, empty at the start) and the number t = 1, 2, ... of the step.

Direction = Callable[[list[Any], dict[str, list[Any]], int], list[Any]]


def sign(x: Any) -> Any:
    """-1, 0 or 1."""
    return MP.mpf((x > 0) - (x < 0))


def gradient_descent() -> Direction:
    """u = g."""
    return lambda g, memory, t: g


def heavy_ball(beta: float) -> Direction:
    """m <- beta m + g, u = m."""

    def direction(g: list[Any], memory: dict[str, list[Any]], t: int) -> list[Any]:
        old = memory.get("m", [MP.zero] * len(g))
        memory["m"] = [MP.mpf(beta) * m + x for m, x in zip(old, g, strict=True)]
        return memory["m"]

    return direction


def nesterov(beta: float) -> Direction:
    """m <- beta m + g, u = g + beta m."""
    ball = heavy_ball(beta)
    return lambda g, memory, t: [x + MP.mpf(beta) * m for x, m in zip(g, ball(g, memory, t), strict=True)]


def sign_descent() -> Direction:
    """u = sign(g)."""
    return lambda g, memory, t: [sign(x) for x in g]


def averaged(name: str, beta: float, values: list[Any], memory: dict[str, list[Any]]) -> list[Any]:
    """Running average under a name: a <- beta a + (1 - beta) value, from 0."""
    beta = MP.mpf(beta)
    old = memory.get(name, [MP.zero] * len(values))
    memory[name] = [beta * a + (1 - beta) * x for a, x in zip(old, values, strict=True)]
    return memory[name]


def signum(beta: float) -> Direction:
    """u = sign of the averaged gradient."""
    return lambda g, memory, t: [sign(m) for m in averaged("m", beta, g, memory)]


def adam(beta1: float, beta2: float, eps: float) -> Direction:
    """u = mhat/(sqrt(vhat) + eps), the averages divided by 1 - beta^t; 0 where 0/0."""

    def direction(g: list[Any], memory: dict[str, list[Any]], t: int) -> list[Any]:
        first = averaged("m", beta1, g, memory)
        second = averaged("v", beta2, [x * x for x in g], memory)
        found = []
        for m, v in zip(first, second, strict=True):
            below = MP.sqrt(v / correction(beta2, t)) + MP.mpf(eps)
            found.append(m / correction(beta1, t) / below if below > 0 else MP.zero)
        return found

    return direction


def correction(beta: float, t: int) -> Any:
    """1 - beta^t."""
    return 1 - MP.mpf(beta) ** t


def unit_steps() -> Direction:
    """u = g/|g| over all coordinates together, 0 where g = 0."""

    def direction(g: list[Any], memory: dict[str, list[Any]], t: int) -> list[Any]:
        length = norm([g])
        return [x / length if length else MP.zero for x in g]

    return direction


# -------------------------------------------------------------------------------------------------- the path


@dataclass(frozen=True)
class Decay:
    """Rates by block: coupled ones join the gradient; decoupled ones shrink the block before or after the step."""

    coupled: Mapping[str, float]
    decoupled: Mapping[str, float]
    shrink: str = "before"


def with_coupled(g: Any, rate: Any, x: Any) -> Any:
    """Gradient of a coordinate, coupled decay included."""
    return g + rate * x


def moved(x: Any, u: Any, lr: Any, rate: Any, shrink: str) -> Any:
    """A coordinate after the step, decoupled decay included."""
    kept = 1 - lr * rate
    return kept * (x - lr * u) if shrink == "after" else kept * x - lr * u


def path(
    chain: Chain,
    start: State,
    trained: Sequence[str],
    direction: Direction,
    decay: Decay,
    rates: Sequence[Any],
    batches: Sequence[Sequence[int]] | None = None,
) -> list[State]:
    """States after 0, 1, ... steps, one rate a step; batch t holds the samples of step t, all of them by default."""
    state, memory = start, {}
    everything = range(len(start["H"][0]))
    places = [(name, i, j) for name in trained for i, row in enumerate(start[name]) for j in range(len(row))]
    coupled, decoupled = (
        {name: MP.mpf(given.get(name, 0.0)) for name in trained} for given in (decay.coupled, decay.decoupled)
    )
    found = [state]
    for t, rate in enumerate(rates):
        lr = MP.mpf(rate)
        slope = gradient(chain, state, everything if batches is None else batches[t])
        g = [with_coupled(slope[n][i][j], coupled[n], state[n][i][j]) for n, i, j in places]
        state = {name: [list(row) for row in block] for name, block in state.items()}
        for (n, i, j), u in zip(places, direction(g, memory, t + 1), strict=True):
            state[n][i][j] = moved(state[n][i][j], u, lr, decoupled[n], decay.shrink)
        found.append(state)
    return found
