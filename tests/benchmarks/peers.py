"""Microseconds per step against JAX (lax.scan, jit, donated, float64) and eager PyTorch, in one process.

    python -m tests.benchmarks.peers [repeats [peer ...]]

Every system takes heavy-ball steps with coupled decay from one start; results must agree to 1e-10 before anything is
timed. Repeats are interleaved; medians and ratios to ours are printed, of wall time and of the CPU time of all threads,
which says more on a machine that does other things too. Peers that cannot be imported are left out.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from statistics import median

import numpy as np

import ufm

LR, BETA, LAM = 0.05, 0.9, 5e-4
CHECK = 200
SECONDS = 0.5  # of each timed piece

CASES = {
    "CE, K = d = 4, n = 1": ufm.UFM(4, 4),
    "CE, K = d = 10, n = 1": ufm.UFM(10, 10),
    "CE, K = 10, d = 64, n = 50": ufm.UFM(10, 64, 50),
    "MSE, ReLU, L = 4, K = 10, d = 30, n = 1": ufm.DUFM(10, 30, 4),
    "MSE, ReLU, L = 4, K = 10, d = 30, n = 50": ufm.DUFM(10, 30, 4, 50),
}

Runner = Callable[[int], dict[str, np.ndarray]]


def ours(problem, start) -> Runner:
    def run(steps):
        traj = ufm.simulate(
            problem, ufm.Momentum(LR, BETA), ufm.Coupled(LAM), steps=steps, init=ufm.Given(**start),
            record=ufm.Every(max(steps, 1)),
        )  # fmt: skip
        return {name: traj[name][-1] for name in problem.trained}

    return run


def with_jax(problem, start) -> Runner:
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    labels, N, L = jnp.asarray(np.array(problem.labels)), problem.samples, problem.depth
    Y = jnp.asarray(np.eye(problem.classes)[:, problem.labels])
    squared = isinstance(problem.loss, ufm.MSE)

    def loss(blocks):
        X = blocks["H"]
        for layer in range(1, L):
            X = jax.nn.relu(blocks[f"W{layer}"] @ X)
        Z = blocks[f"W{L}"] @ X
        if squared:
            return 0.5 * jnp.sum((Z - Y) ** 2) / N
        return jnp.mean(jax.nn.logsumexp(Z, axis=0) - Z[labels, jnp.arange(N)])

    gradient = jax.grad(loss)

    def step(carry, _):
        theta, v = carry
        v = jax.tree.map(lambda g, v, x: BETA * v + g + LAM * x, gradient(theta), v, theta)
        return (jax.tree.map(lambda x, v: x - LR * v, theta, v), v), None

    compiled = {}

    def run(steps):
        if steps not in compiled:
            whole = jax.jit(lambda carry: jax.lax.scan(step, carry, None, length=steps)[0], donate_argnums=0)
            first = {name: jnp.asarray(value) for name, value in start.items()}
            compiled[steps] = whole.lower((first, first)).compile()
        theta = {name: jnp.asarray(np.array(value)) for name, value in start.items()}
        v = {name: jnp.zeros_like(value) for name, value in theta.items()}
        theta, _ = compiled[steps]((theta, v))
        return {name: np.asarray(value) for name, value in jax.block_until_ready(theta).items()}

    return run


def with_torch(problem, start) -> Runner:
    import torch

    labels, L = torch.tensor(np.array(problem.labels)), problem.depth
    Y = torch.tensor(np.eye(problem.classes)[:, problem.labels])
    squared = isinstance(problem.loss, ufm.MSE)

    def run(steps):
        blocks = {name: torch.tensor(value, requires_grad=True) for name, value in start.items()}
        optimizer = torch.optim.SGD(list(blocks.values()), lr=LR, momentum=BETA, weight_decay=LAM)
        for _ in range(steps):
            X = blocks["H"]
            for layer in range(1, L):
                X = torch.relu(blocks[f"W{layer}"] @ X)
            Z = blocks[f"W{L}"] @ X
            loss = (
                0.5 * ((Z - Y) ** 2).sum() / problem.samples
                if squared
                else torch.nn.functional.cross_entropy(Z.T, labels)
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return {name: value.detach().numpy() for name, value in blocks.items()}

    return run


def steps_for(run: Runner) -> int:
    """Number of steps that takes about SECONDS."""
    run(CHECK)
    begin = time.perf_counter()
    run(CHECK)
    few = time.perf_counter() - begin
    begin = time.perf_counter()
    run(5 * CHECK)
    per_step = max((time.perf_counter() - begin - few) / (4 * CHECK), 1e-7)
    return int(np.clip(SECONDS / per_step, 2 * CHECK, 2_000_000))


SYSTEMS = {"ufm": ours, "jax": with_jax, "torch": with_torch}


def measure(
    problem: ufm.UFM | ufm.DUFM, repeats: int, peers: Sequence[str]
) -> dict[str, list[tuple[float, float]]]:
    """Microseconds per step of every system that is there, wall and CPU, one pair for each repeat."""
    rng = np.random.default_rng(0)
    start = {name: 0.3 * rng.standard_normal(problem.shapes[name]) for name in problem.trained}
    systems = {}
    for name in ("ufm", *peers):
        try:
            systems[name] = SYSTEMS[name](problem, start)
        except ImportError:
            print(f"{name} cannot be imported and is left out")
    expected = systems["ufm"](CHECK)
    for name, run in systems.items():
        found = run(CHECK)
        worst = max(float(np.abs(found[block] - expected[block]).max()) for block in expected)
        if not worst <= 1e-10:
            raise SystemExit(f"{name} differs by {worst:.2e} after {CHECK} steps of {problem!r}")
    lengths = {name: steps_for(run) for name, run in systems.items()}
    for name, run in systems.items():
        run(lengths[name])  # compiled for this length
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in systems}
    for _ in range(repeats):
        for name, run in systems.items():
            wall, cpu = time.perf_counter(), time.process_time()
            run(lengths[name])
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            times[name].append((wall / lengths[name] * 1e6, cpu / lengths[name] * 1e6))
    return times


def cell(values: list[tuple[float, float]], ours: list[tuple[float, float]]) -> str:
    """Medians of wall and CPU time, and how many times ours they are."""
    texts = []
    for position, kind in enumerate(("wall", "cpu")):
        own, reference = (median(pair[position] for pair in pairs) for pairs in (values, ours))
        texts.append(f"{kind} {own:8.3f}" + ("" if values is ours else f" ({own / reference:5.2f} x)"))
    return ", ".join(texts)


def main() -> None:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    peers = sys.argv[2:] or ["jax", "torch"]
    load = f", load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    print(f"{os.cpu_count()} CPUs{load}; medians of {repeats} interleaved repeats, us per step (times ours)")
    for name, problem in CASES.items():
        times = measure(problem, repeats, peers)
        cells = [f"{system}: {cell(values, times['ufm'])}" for system, values in times.items()]
        print(f"{name:42s}" + "   ".join(cells), flush=True)


if __name__ == "__main__":
    main()
