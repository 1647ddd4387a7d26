"""simulate_symmetric(classes, optimizer, ...) -> SymmetricTrajectory: two numbers instead of a K x K matrix.

With H frozen at a simplex ETF, c (I - J/K), and a start x I + y J, every optimizer that treats all entries alike
keeps W_t = (diagonal - off_diagonal) I + off_diagonal J (proved in the room `symmetric_path`). The steps are taken
by the same compiled update rules as those of `ufm.simulate`, on the vector (diagonal, off_diagonal), so that a
million classes cost what two do.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ufm.checks import choice, fits, real, whole
from ufm.decay import Decay, shrinks_after
from ufm.errors import DivergedError, IncompatibleError, InterruptedRunError, invalid
from ufm.initial import SimplexETF, Zeros
from ufm.problems import UFM
from ufm.record import Every, planned_steps
from ufm.run import Run
from ufm.stepping import CHUNK_SECONDS, collector_at_rest, progress_bar
from ufm.theory import symmetric_path
from ufm.trajectory import Status

if TYPE_CHECKING:
    import xarray

MOST_CLASSES = 2**53  # above, K - 1 is no float64


@dataclass(frozen=True, eq=False)
class SymmetricTrajectory:
    """A run of two-valued weights W_t = (diagonal - off_diagonal) I + off_diagonal J.

    Record i is the state after ``steps[i]`` updates; arrays are read-only.

    Parameters
    ----------
    classes : int
        Number K of classes; W is K x K.
    optimizer, decay
        How steps were taken, and where weight decay acted.
    steps : ndarray of int, shape (records,)
        Recorded steps.
    diagonal, off_diagonal : ndarray, shape (records,)
        The two values of W.
    norm : float
        c in H = c (I - J/K); 1/sqrt(K - 1) in theorems 3.3 and 3.4.
    samples_factor : float
        Factor of the sum over classes in the fit: 1/K for the mean over samples.
    coupled : float
        Coupled decay rate of W, which sets the penalty.
    status : Status
        How the run ended.
    stats : mapping
        Seconds, and counts of the sign arithmetic.

    Examples
    --------
    >>> import ufm
    >>> run = ufm.simulate_symmetric(10**6, ufm.SignGD(0.5), ufm.Decoupled(0.1), steps=2)
    >>> run.diagonal.tolist(), run.off_diagonal.tolist()
    ([0.0, 0.5, 0.975], [0.0, -0.5, -0.975])
    """

    classes: int
    optimizer: Any
    decay: Decay | None
    steps: np.ndarray
    diagonal: np.ndarray
    off_diagonal: np.ndarray
    norm: float
    samples_factor: float
    coupled: float
    status: Status
    stats: Mapping[str, Any] = field(repr=False)

    def __post_init__(self) -> None:
        for array in (self.steps, self.diagonal, self.off_diagonal):
            array.setflags(write=False)

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state)
        self.__post_init__()

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def a(self) -> np.ndarray:
        """The a of theorem 3.4, W = (a + b) I - b J: the diagonal entry, shape (records,)."""
        return self.diagonal

    @property
    def b(self) -> np.ndarray:
        """The b of theorem 3.4: minus the off-diagonal entry, shape (records,)."""
        return -self.off_diagonal

    @property
    def alpha(self) -> np.ndarray:
        """NC0, ||W^T 1||^2/K = (diagonal + (K - 1) off_diagonal)^2, shape (records,)."""
        alpha: np.ndarray = symmetric_path.nc0(self.diagonal, self.off_diagonal, self.classes)
        return alpha

    @property
    def logit_gap(self) -> np.ndarray:
        """Logit of the true class minus that of any other, c (diagonal - off_diagonal), shape (records,)."""
        gap: np.ndarray = symmetric_path.logit_gap(self.diagonal, self.off_diagonal, self.norm)
        return gap

    @property
    def fit(self) -> np.ndarray:
        """Cross-entropy averaged (or summed) over samples, shape (records,)."""
        loss_of_sample: np.ndarray = symmetric_path.cross_entropy(self.logit_gap, self.classes)
        return self.classes * self.samples_factor * loss_of_sample

    @property
    def penalty(self) -> np.ndarray:
        """lam/2 ||W||_F^2 of the coupled decay, shape (records,)."""
        square: np.ndarray = symmetric_path.squared_norm(self.diagonal, self.off_diagonal, self.classes)
        return 0.5 * self.coupled * square

    @property
    def loss(self) -> np.ndarray:
        """Objective: fit + penalty, shape (records,)."""
        loss: np.ndarray = self.fit + self.penalty
        return loss

    def weights(self, i: int) -> np.ndarray:
        """W at record i as a matrix, shape (classes, classes)."""
        whole("SymmetricTrajectory.weights.i", i, -len(self), len(self) - 1)
        fits("SymmetricTrajectory.weights", "W", self.classes**2, ".diagonal and .off_diagonal instead")
        return symmetric_path.weights(self.diagonal[i], self.off_diagonal[i], self.classes)

    def to_xarray(self) -> xarray.Dataset:
        """Both values, losses and NC0 as a labelled dataset over the recorded steps."""
        import xarray

        names = ("diagonal", "off_diagonal", "fit", "penalty", "loss", "logit_gap")
        variables = {name: ("step", getattr(self, name)) for name in names} | {"nc0": ("step", self.alpha)}
        attributes = {
            "status": str(self.status),
            "run": f"{self.classes} classes, {self.optimizer!r}, {self.decay!r}",
            "scale": "dimensionless",
        }
        return xarray.Dataset(variables, {"step": self.steps}, attributes)

    def __str__(self) -> str:
        return "\n".join(
            [
                f"SymmetricTrajectory of {self.optimizer!r}, {self.decay!r}, {self.classes} classes",
                f"  {self.status}",
                f"  {len(self)} records of steps {self.steps[0]} ... {self.steps[-1]}, "
                f"loss {self.loss[0]:.6g} -> {self.loss[-1]:.6g}, alpha {self.alpha[0]:.6g} -> {self.alpha[-1]:.6g}",
            ]
        )


@lru_cache(maxsize=1)
def _two_classes() -> UFM:
    """A problem of the right kind: a run on it checks optimizer, decay, steps and records."""
    return UFM(classes=2, width=2, features=SimplexETF())


def simulate_symmetric(
    classes: int,
    optimizer: Any,
    decay: Decay | None = None,
    *,
    steps: int,
    record: Any = Every(1),
    start: tuple[float, float] = (0.0, 0.0),
    reduction: str = "mean",
    norm: str | float = "frobenius",
    per_class: int = 1,
    progress: bool | None = None,
) -> SymmetricTrajectory:
    """Integrate the last layer over features frozen at a simplex ETF, from a two-valued start, at any K.

    Parameters
    ----------
    classes : int
        Number K of classes >= 2; the cost does not depend on it.
    optimizer : GD, Momentum, SignGD, Signum, Adam or Elementwise
        How a step is taken.
    decay : Coupled, Decoupled or Mixed, optional
        Decay of W.
    steps : int
        Number of updates >= 0.
    record : Every, LogSpaced or At
        Which steps are kept; the first and the last always are.
    start : pair of float
        Diagonal and off-diagonal entry of W_0.
    reduction : {"mean", "sum"}
        Cross-entropy averaged over samples, or summed.
    norm : {"frobenius", "columns"} or float
        Norm of the frame as in `simplex_etf`, or c > 0 in H = c (I - J/K).
    per_class : int
        Equal samples in each class; matters for the sum alone.
    progress : bool, optional
        Show a progress bar.

    Returns
    -------
    SymmetricTrajectory

    Raises
    ------
    InvalidProblemError, IncompatibleError
        For arguments that are not allowed, NormalisedGD and Blockwise among them, each in one sentence.
    DivergedError
        When W or the logits are no longer finite; `error.trajectory` holds the records so far.
    InterruptedRunError
        On Ctrl-C; `error.trajectory` holds the records so far.

    Examples
    --------
    >>> import ufm
    >>> run = ufm.simulate_symmetric(10, ufm.SignGD(0.1), ufm.Decoupled(5e-4), steps=400_000, record=ufm.Every(400_000))
    >>> round(float(run.alpha[-1] / (8 / 5e-4) ** 2), 8)
    1.0
    """
    run = Run(_two_classes(), optimizer, decay, Zeros(), steps, record=record)
    if run.steps is None:
        raise invalid("simulate_symmetric.steps", None, "a whole number >= 0")
    setting = Setting.of(classes, reduction, norm, per_class)
    if not optimizer.elementwise:
        raise IncompatibleError(
            f"simulate_symmetric.optimizer is {optimizer!r}; allowed: optimizers that treat each entry of W alone, "
            "such as GD, Momentum, SignGD, Signum, Adam or Elementwise."
        )
    return _trajectory(run, setting, integrate_symmetric(run, setting, _pair(start), progress))


def _trajectory(run: Run, setting: Setting, found: Integrated) -> SymmetricTrajectory:
    """The result of a run, or the error that ends it and holds it."""
    trajectory = SymmetricTrajectory(
        classes=setting.classes,
        optimizer=run.optimizer,
        decay=run.decay,
        steps=found.steps,
        diagonal=found.states[:, 0, 0].copy(),
        off_diagonal=found.states[:, 1, 0].copy(),
        norm=setting.norm,
        samples_factor=setting.samples_factor,
        coupled=run.coupled["W1"],
        status=found.status,
        stats=found.stats,
    )
    if found.status.name == "diverged":
        raise DivergedError(f"{run.optimizer!r} {found.status}", trajectory)  # type: ignore[arg-type]
    if found.status.name == "interrupted":
        raise InterruptedRunError(f"the run was {found.status}", trajectory)  # type: ignore[arg-type]
    return trajectory


def _pair(start: Any) -> np.ndarray:
    allowed = "two finite numbers, the diagonal and the off-diagonal entry"
    try:
        diagonal, off_diagonal = start
    except (TypeError, ValueError):
        raise invalid("simulate_symmetric.start", start, allowed) from None
    return np.array(
        [real("simulate_symmetric.start", value, allowed=allowed) for value in (diagonal, off_diagonal)]
    )


class Setting(NamedTuple):
    """What the two-valued gradient depends on."""

    classes: int
    norm: float  # c in H = c (I - J/K)
    samples_factor: float  # of the sum over classes

    @staticmethod
    def of(classes: Any, reduction: Any = "mean", norm: Any = "frobenius", per_class: Any = 1) -> Setting:
        """Check the arguments of `simulate_symmetric`."""
        where = "simulate_symmetric"
        K = whole(f"{where}.classes", classes, 2, MOST_CLASSES)
        n = whole(f"{where}.per_class", per_class)
        choice(f"{where}.reduction", reduction, ("mean", "sum"))
        if isinstance(norm, str):
            c = float(symmetric_path.frame_norm(K, choice(f"{where}.norm", norm, ("frobenius", "columns"))))
        else:
            allowed = "'frobenius', 'columns' or a finite number > 0"
            c = real(f"{where}.norm", norm, 0.0, allowed=allowed)
            if c == 0.0:
                raise invalid(f"{where}.norm", norm, allowed)
        return Setting(K, c, 1.0 / K if reduction == "mean" else float(n))


class Disturbances(NamedTuple):
    """Copies of a run whose operations are disturbed by what round-off may be; see `ufm.kernels.reduced`."""

    kinds: np.ndarray  # (copies,)
    signs: np.ndarray  # (period, 8 copies)


class Integrated(NamedTuple):
    """What became of a run and its copies; copy 0 is the run."""

    steps: np.ndarray  # (records,)
    states: np.ndarray  # (records, 2, copies): diagonal and off-diagonal entry
    status: Status
    stats: Mapping[str, Any]


ALONE = Disturbances(np.zeros(1, np.int64), np.zeros((0, 1)))


def integrate_symmetric(
    run: Run,
    setting: Setting,
    start: np.ndarray,
    progress: bool | None = None,
    disturbances: Disturbances = ALONE,
    error: float = 0.0,
) -> Integrated:
    """Integrate a checked run, its learning and decay rates multiplied by 1 + `error`, beside disturbed copies."""
    began, total, copies = time.perf_counter(), run.steps, len(disturbances.kinds)
    assert total is not None
    with collector_at_rest():
        from ufm.kernels import contract, loop, reduced, updates
        from ufm.kernels.vectors import WIDTH

        update = updates.rule(run.optimizer, "float64")
        kernel = contract.compiled(reduced.run, "reduced", "float64")
    when, size = planned_steps(run.record, total), 2 * copies
    coupled, decoupled = (rate["W1"] * (1 + error) for rate in (run.coupled, run.decoupled))
    step = contract.Step(
        hyper=updates.hyper_of([run.optimizer], "float64"),
        decay=np.zeros(3 * WIDTH),  # the loop applies it
        coupled=np.full(size, coupled),
        decoupled=np.full(size, decoupled),
        has_coupled=int(coupled > 0),
        adds_coupled=0,
        shrinks=0,
        shrink_after=int(shrinks_after(run.decay)),
        scale_free=int(run.optimizer.scale_free),
        elementwise=1,
        buffers=run.optimizer.buffers,
        table=np.array([[0, 2, copies]], np.int64),
    )
    nothing = np.empty((1, 0))
    records = contract.Records(when, np.empty((1, len(when), size)), nothing, nothing)
    K, c, factor = setting
    numbers = np.array([c, c * factor, K - 1.0, np.finfo(np.float64).eps])
    theta = np.repeat(start, copies)
    grad, m, v, unit = (np.zeros(size) for _ in range(4))
    cursor = np.array([0, 0, contract.FINE, 0, -1, 0], np.int64)
    rates = run.rates * (1 + error)

    def advance(stop: int) -> None:
        at = int(cursor[loop.AT])
        with contract.interrupt_deferred():
            kernel(
                update, step, records, numbers, disturbances.kinds, disturbances.signs,
                theta, grad, m, v, unit, rates[at:stop], at, stop, cursor,
            )  # fmt: skip

    name, reason = "completed", f"all {total} steps were taken"
    begin = time.perf_counter()
    try:
        with progress_bar(progress, total, 0) as show:
            _in_chunks(advance, cursor, total, show)
        if cursor[loop.WHY] == contract.NOT_FINITE:
            name, reason = (
                "diverged",
                "its weights or logits are not finite; try a smaller learning rate or decay",
            )
    except KeyboardInterrupt:
        name, reason = "interrupted", "Ctrl-C was pressed"
    at, kept = int(cursor[loop.AT]), int(cursor[loop.KEPT])
    states, recorded = records.states[0, :kept], when[:kept]
    if name == "interrupted" and (not kept or recorded[-1] != at):
        states, recorded = np.vstack([states, theta]), np.append(recorded, at)
    elif not kept:  # not even the start has finite logits: it is kept all the same
        states, recorded = np.repeat(start, copies)[None], np.zeros(1, np.int64)
    stats = {
        "steps": at,
        "seconds": time.perf_counter() - begin,
        "prepare_seconds": begin - began,
        "exponents": bool(cursor[reduced.CARRIED]),
        "undecided_signs": int(cursor[loop.UNDECIDED]),
        "first_undecided_step": int(cursor[loop.FIRST_UNDECIDED]),
    }
    return Integrated(recorded.copy(), states.reshape(-1, 2, copies), Status(name, at, reason), stats)


def _in_chunks(
    advance: Callable[[int], None], cursor: np.ndarray, total: int, show: Callable[[int], None]
) -> None:
    """Call compiled code for a fraction of a second at a time, so that Ctrl-C and the bar get their turn."""
    at, chunk = 0, 4096
    while True:
        clock = time.perf_counter()
        advance(min(at + chunk, total))
        before, at = at, int(cursor[0])
        show(at)
        if at >= total or cursor[2] != 0:
            return
        seconds = max(time.perf_counter() - clock, 1e-6)
        chunk = int(np.clip((at - before) * CHUNK_SECONDS / seconds, 1, 8 * chunk))
