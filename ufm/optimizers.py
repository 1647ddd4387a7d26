"""How a step is taken. The fields of an optimizer are its hyper-parameters.

With g the gradient (plus lam theta where decay is coupled) and t = 1 for the first step, the updates are
those of PyTorch 2: no dampening, Adam's eps outside the root, sign(0) = 0.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from ufm.checks import flag, real
from ufm.errors import invalid
from ufm.schedules import Schedule, checked


class Optimizer(Protocol):
    """What `simulate` asks of an optimizer."""

    @property
    def lr(self) -> float | Schedule:
        """Learning rate or schedule."""
        ...

    @property
    def rule(self) -> str | Callable[..., Any]:
        """Name of the compiled update rule, or a user's own function."""
        ...

    @property
    def scale_free(self) -> bool:
        """Whether the step does not change when all gradients so far are multiplied by one factor."""
        ...

    @property
    def elementwise(self) -> bool:
        """Whether each coordinate's step depends on that coordinate alone."""
        ...

    @property
    def buffers(self) -> int:
        """How many numbers the rule keeps of each coordinate: none, m, or m and v."""
        ...

    def hyper(self) -> tuple[float, ...]:
        """Hyper-parameters, other than the rate, as the update rule reads them."""
        ...


class _Rule:
    """Checks the rate; the fields of the subclasses are the hyper-parameters."""

    rule: ClassVar[str]
    scale_free: ClassVar[bool] = False
    elementwise: ClassVar[bool] = True
    buffers: ClassVar[int] = 0
    lr: float | Schedule

    def __post_init__(self) -> None:
        name = type(self).__name__
        object.__setattr__(self, "lr", checked(f"{name}.lr", self.lr))
        for field in ("beta", "beta1", "beta2"):
            if hasattr(self, field):
                value = real(f"{name}.{field}", getattr(self, field), 0.0, 1.0)
                object.__setattr__(self, field, value)

    def hyper(self) -> tuple[float, ...]:
        """Hyper-parameters as the update rule reads them."""
        return ()


@dataclass(frozen=True)
class GD(_Rule):
    """Gradient descent: theta <- theta - lr g.

    Parameters
    ----------
    lr : float or schedule
        Learning rate >= 0.

    Raises
    ------
    InvalidProblemError
        For a negative or non-finite rate.

    Examples
    --------
    >>> GD(0.1)
    GD(lr=0.1)
    """

    lr: float | Schedule
    rule: ClassVar[str] = "gd"


@dataclass(frozen=True)
class Momentum(_Rule):
    """Heavy ball, or Nesterov as in PyTorch: m <- beta m + g, theta <- theta - lr m.

    With ``nesterov=True`` the step is lr (g + beta m) with the new m.

    Parameters
    ----------
    lr : float or schedule
        Learning rate >= 0.
    beta : float
        Momentum in [0, 1).
    nesterov : bool
        Look-ahead form.

    Raises
    ------
    InvalidProblemError
        For a number outside its range.

    Examples
    --------
    >>> Momentum(0.1, 0.9)
    Momentum(lr=0.1, beta=0.9, nesterov=False)
    """

    lr: float | Schedule
    beta: float
    nesterov: bool = False
    rule: ClassVar[str] = "momentum"
    buffers: ClassVar[int] = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "nesterov", flag("Momentum.nesterov", self.nesterov))

    def hyper(self) -> tuple[float, ...]:
        """Momentum, and 1 for Nesterov."""
        return self.beta, float(self.nesterov)


@dataclass(frozen=True)
class SignGD(_Rule):
    """Sign descent: theta <- theta - lr sign(g), with sign(0) = 0.

    Parameters
    ----------
    lr : float or schedule
        Learning rate >= 0.

    Examples
    --------
    >>> SignGD(0.01)
    SignGD(lr=0.01)
    """

    lr: float | Schedule
    rule: ClassVar[str] = "signgd"
    scale_free: ClassVar[bool] = True


@dataclass(frozen=True)
class Signum(_Rule):
    """Sign of the averaged gradient: m <- beta m + (1 - beta) g, theta <- theta - lr sign(m).

    Parameters
    ----------
    lr : float or schedule
        Learning rate >= 0.
    beta : float
        Momentum in [0, 1).

    Examples
    --------
    >>> Signum(0.01, beta=0.9)
    Signum(lr=0.01, beta=0.9)
    """

    lr: float | Schedule
    beta: float
    rule: ClassVar[str] = "signum"
    buffers: ClassVar[int] = 1
    scale_free: ClassVar[bool] = True

    def hyper(self) -> tuple[float, ...]:
        """Momentum."""
        return (self.beta,)


@dataclass(frozen=True)
class Adam(_Rule):
    """Adam; with `Decoupled` decay it is AdamW.

    m <- beta1 m + (1 - beta1) g, v <- beta2 v + (1 - beta2) g^2,
    theta <- theta - lr mhat / (sqrt(vhat) + eps) with mhat = m/(1 - beta1^t), vhat = v/(1 - beta2^t).

    Parameters
    ----------
    lr : float or schedule
        Learning rate >= 0.
    beta1, beta2 : float
        Factors of the two averages, in [0, 1).
    eps : float
        Added to the root of the second, >= 0; at 0 the rule does not see the scale of the gradient.

    Raises
    ------
    InvalidProblemError
        For a number outside its range.

    Examples
    --------
    >>> Adam(1e-3)
    Adam(lr=0.001, beta1=0.9, beta2=0.999, eps=1e-08)
    """

    lr: float | Schedule
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    rule: ClassVar[str] = "adam"
    buffers: ClassVar[int] = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "eps", real("Adam.eps", self.eps, 0.0))

    @property
    def scale_free(self) -> bool:  # type: ignore[override]
        """Only eps sets a scale."""
        return self.eps == 0.0

    def hyper(self) -> tuple[float, ...]:
        """Both averages' factors and eps."""
        return self.beta1, self.beta2, self.eps


@dataclass(frozen=True)
class NormalisedGD(_Rule):
    """Gradient descent with unit steps: theta <- theta - lr g/||g||, the norm over all trained blocks.

    Parameters
    ----------
    lr : float or schedule
        Learning rate >= 0.

    Examples
    --------
    >>> NormalisedGD(0.01)
    NormalisedGD(lr=0.01)
    """

    lr: float | Schedule
    rule: ClassVar[str] = "normalised_gd"
    scale_free: ClassVar[bool] = True
    elementwise: ClassVar[bool] = False


class _UserRule:
    buffers: ClassVar[int] = 2
    lr: float | Schedule
    step: Callable[..., Any]
    parameters: Sequence[float]

    def __post_init__(self) -> None:
        name = type(self).__name__
        object.__setattr__(self, "lr", checked(f"{name}.lr", self.lr))
        if not inspect.isfunction(getattr(self.step, "py_func", self.step)):
            raise invalid(f"{name}.step", self.step, "a function, plain or decorated with numba.njit")
        try:
            values = tuple(real(f"{name}.parameters", value) for value in self.parameters)
        except TypeError:
            raise invalid(f"{name}.parameters", self.parameters, "a sequence of finite numbers") from None
        object.__setattr__(self, "parameters", values)

    @property
    def rule(self) -> Callable[..., Any]:
        """The user's function."""
        return self.step

    def hyper(self) -> tuple[float, ...]:
        """The parameters as given."""
        return tuple(self.parameters)


@dataclass(frozen=True)
class Elementwise(_UserRule):
    """Your own elementwise optimizer: one scalar function.

    Parameters
    ----------
    step : callable
        ``step(theta, g, m, v, lr, t, p) -> (theta, m, v)`` on scalars; m and v are two buffers that start
        at 0, t counts from 1, p holds `parameters`. It is compiled with numba.
    lr : float or schedule
        Learning rate >= 0.
    parameters : sequence of float
        What `step` reads as p.
    scale_free : bool
        Whether the step does not change when all gradients so far are scaled by one factor; m must then scale
        with the gradient and v with its square.

    Raises
    ------
    InvalidProblemError, IncompatibleError
        For a number that is not allowed, or a function that does not compile.

    Examples
    --------
    >>> import numpy as np
    >>> def lion(theta, g, m, v, lr, t, p):
    ...     return theta - lr * np.sign(p[0] * m + (1 - p[0]) * g), 0.99 * m + 0.01 * g, v
    >>> rule = Elementwise(lion, 0.01, parameters=[0.9], scale_free=True)
    >>> [round(float(value), 6) for value in rule.step(1.0, 2.0, 0.0, 0.0, rule.lr, 1, rule.parameters)]
    [0.99, 0.02, 0.0]
    """

    step: Callable[..., Any]
    lr: float | Schedule
    parameters: Sequence[float] = ()
    scale_free: bool = False
    elementwise: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "scale_free", flag("Elementwise.scale_free", self.scale_free))


@dataclass(frozen=True)
class Blockwise(_UserRule):
    """Your own matrix optimizer: one function over the flat vector and the block table.

    Parameters
    ----------
    step : callable
        ``step(theta, grad, m, v, lr, t, p, table)`` changes theta, m and v in place; row i of `table` is
        (offset, rows, columns) of trained block i in these flat vectors. It is compiled with numba.
    lr : float or schedule
        Learning rate >= 0.
    parameters : sequence of float
        What `step` reads as p.

    Examples
    --------
    >>> import numpy as np
    >>> def unit_steps(theta, grad, m, v, lr, t, p, table):
    ...     theta[: grad.size] -= lr * grad / np.linalg.norm(grad)
    >>> rule = Blockwise(unit_steps, 0.5)
    >>> theta, grad = np.ones(3), np.array([3.0, 4.0])  # the last entry of theta is frozen
    >>> rule.step(theta, grad, None, None, rule.lr, 1, rule.parameters, None)
    >>> theta.round(6).tolist()
    [0.7, 0.6, 1.0]
    """

    step: Callable[..., Any]
    lr: float | Schedule
    parameters: Sequence[float] = ()
    scale_free: ClassVar[bool] = False
    elementwise: ClassVar[bool] = False
