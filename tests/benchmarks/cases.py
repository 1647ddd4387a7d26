"""What is timed: problems, rules and numbers of runs, and how many times our time the fastest peer should take."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

import ufm
from ufm.run import Run

LAM = 5e-4
CHECK = 64  # steps after which all systems must agree
OPTIMIZERS = {"gd": ufm.GD, "adam": ufm.Adam, "signgd": ufm.SignGD}
LARGEST_RATE = {"gd": 0.05, "adam": 0.005, "signgd": 0.0005}


@dataclass(frozen=True)
class Case:
    """Runs of one problem that differ in start and learning rate, with coupled decay."""

    name: str
    problem: ufm.UFM | ufm.DUFM
    runs: int
    goal: float
    rule: str = "gd"

    @property
    def title(self) -> str:
        """Words of the table."""
        p = self.problem
        loss = "MSE, ReLU" if p.depth > 1 else "CE"
        sizes = f"K = d = {p.classes}" if p.classes == p.width else f"K = {p.classes}, d = {p.width}"
        depth = f", L = {p.depth}" if p.depth > 1 else ""
        runs = "one run" if self.runs == 1 else f"{self.runs} runs"
        rule = {"gd": "GD", "adam": "Adam", "signgd": "SignGD"}[self.rule]
        return f"{runs}, {rule}, {loss}{depth}, {sizes}, n = {p.samples // p.classes}"

    @cached_property
    def rates(self) -> np.ndarray:
        """Learning rate of every run."""
        largest = LARGEST_RATE[self.rule]
        return np.linspace(largest / 5, largest, self.runs) if self.runs > 1 else np.array([largest])

    @cached_property
    def starts(self) -> dict[str, np.ndarray]:
        """Start of every block, shape (runs, rows, columns)."""
        rng = np.random.default_rng(0)
        shapes = self.problem.shapes
        return {name: 0.3 * rng.standard_normal((self.runs, *shapes[name])) for name in self.problem.trained}

    def alone(self, run: int) -> Case:
        """One of the runs by itself."""
        one = replace(self, runs=1)
        one.__dict__["rates"] = self.rates[run : run + 1]
        one.__dict__["starts"] = {name: start[run : run + 1] for name, start in self.starts.items()}
        return one

    @property
    def flops(self) -> int:
        """Multiplications and additions in the products of one step of all runs."""
        p = self.problem
        layers = p.classes * p.width + (p.depth - 1) * p.width**2
        return 6 * self.runs * p.samples * layers

    def described(self, steps: int) -> list[Run]:
        """The runs as they are given to us."""
        optimizer = OPTIMIZERS[self.rule]
        return [
            Run(
                self.problem, optimizer(float(lr)), ufm.Coupled(LAM), steps=steps, record=ufm.Every(max(steps, 1)),
                init=ufm.Given(**{name: start[i] for name, start in self.starts.items()}),
            )
            for i, lr in enumerate(self.rates)
        ]  # fmt: skip


def _cases() -> dict[str, Case]:
    deep = ufm.DUFM(10, 30, 4)
    rows = (
        Case("one-4", ufm.UFM(4, 4), 1, 3.5),
        Case("one-10", ufm.UFM(10, 10), 1, 3.3),
        Case("one-64", ufm.UFM(10, 64, 50), 1, 1.6),
        Case("one-100", ufm.UFM(100, 128, 10), 1, 1.05),
        Case("one-deep", deep, 1, 2),
        Case("one-deep-50", ufm.DUFM(10, 30, 4, 50), 1, 1.1),
        Case("many-4", ufm.UFM(4, 4), 256, 15),
        many := Case("many-10", ufm.UFM(10, 10), 256, 5),
        Case("many-30", ufm.UFM(10, 30, 10), 128, 1.7),
        Case("many-32", ufm.UFM(32, 32), 64, 1.6),
        Case("many-deep", deep, 256, 3),
        replace(many, name="many-adam", rule="adam"),
        replace(many, name="many-signgd", rule="signgd"),
        grid := Case("grid", ufm.UFM(10, 64, 5), 64, 1.8),
        replace(grid, name="grid-adam", rule="adam"),
        replace(grid, name="grid-signgd", rule="signgd"),
    )
    return {case.name: case for case in rows}


CASES = _cases()
