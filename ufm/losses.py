"""What is averaged over samples: cross-entropy, squared error, or a user's own function of the logits."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Protocol

from ufm.arrays import Content
from ufm.checks import choice, real
from ufm.errors import invalid


class Loss(Protocol):
    """What a problem asks of a loss."""

    name: ClassVar[str]

    @property
    def shift_invariant(self) -> bool:
        """Whether adding a constant to all logits of a sample leaves the loss unchanged."""
        ...

    @property
    def why(self) -> str:
        """One sentence on the shift invariance."""
        ...


@dataclass(frozen=True)
class CrossEntropy:
    """Cross-entropy of softmax(z) against one-hot, smoothed or soft targets.

    ell(z, y) = -sum_k y_k log softmax(z)_k, averaged over samples (or summed). Shift-invariant.

    Parameters
    ----------
    smoothing : float
        s in [0, 1): targets are (1 - s) onehot + s/K.
    targets : array_like, shape (classes, classes) or (classes, samples), optional
        Soft targets >= 0 by class or by sample (columns), in the order of `problem.labels`.
    reduction : {"mean", "sum"}
        Average over samples, or sum.

    Raises
    ------
    InvalidProblemError
        For a smoothing outside [0, 1), targets with negative entries, or smoothing with soft targets.

    Examples
    --------
    >>> CrossEntropy(smoothing=0.1)
    CrossEntropy(smoothing=0.1, targets=None, reduction='mean')
    """

    smoothing: float = 0.0
    targets: Any = None
    reduction: str = "mean"
    name: ClassVar[str] = "cross-entropy"
    shift_invariant: ClassVar[bool] = True
    why: ClassVar[str] = "softmax does not change when a constant is added to all logits of a sample"

    def __post_init__(self) -> None:
        object.__setattr__(self, "smoothing", real("CrossEntropy.smoothing", self.smoothing, 0.0, 1.0))
        choice("CrossEntropy.reduction", self.reduction, ("mean", "sum"))
        if self.targets is None:
            return
        content = self.targets
        if not isinstance(content, Content):
            content = Content("CrossEntropy.targets", self.targets)
        if content.array.ndim != 2 or (content.array < 0).any():
            raise invalid("CrossEntropy.targets", self.targets, "a matrix of numbers >= 0, classes x samples")
        if self.smoothing:
            raise invalid(
                "CrossEntropy.smoothing", self.smoothing, "0 with soft targets, which it would ignore"
            )
        object.__setattr__(self, "targets", content)


@dataclass(frozen=True)
class MSE:
    """Squared error ||Z - Y||_F^2/(2N) against one-hot targets (without 1/N for the sum). Not shift-invariant.

    Parameters
    ----------
    reduction : {"mean", "sum"}
        Average over samples, or sum.

    Raises
    ------
    InvalidProblemError
        For another reduction.

    Examples
    --------
    >>> MSE()
    MSE(reduction='mean')
    """

    reduction: str = "mean"
    name: ClassVar[str] = "MSE"
    shift_invariant: ClassVar[bool] = False
    why: ClassVar[str] = (
        "the squared error changes when a constant is added to all logits of a sample: "
        "1^T grad_W = (m^T H - 1^T Y) H^T/N"
    )

    def __post_init__(self) -> None:
        choice("MSE.reduction", self.reduction, ("mean", "sum"))


@dataclass(frozen=True)
class Regression:
    """Squared error ||Z - Y||_F^2/(2N) against real targets Y, the loss of a `RegressionUFM`. Not shift-invariant.

    Parameters
    ----------
    targets : array_like, shape (outputs, samples)
        Finite real numbers.

    Examples
    --------
    >>> Regression([[1.0, -0.5]])
    Regression(targets=[[1.0, -0.5]])
    """

    targets: Any
    name: ClassVar[str] = "that of a regression"
    reduction: ClassVar[str] = "mean"
    shift_invariant: ClassVar[bool] = False
    why: ClassVar[str] = (
        "the squared error to real targets changes when a constant is added to all outputs of a sample"
    )

    def __post_init__(self) -> None:
        if not isinstance(self.targets, Content):
            object.__setattr__(self, "targets", Content("Regression.targets", self.targets))


@dataclass(frozen=True)
class UserLoss:
    """Your own function of the logits.

    Parameters
    ----------
    residual : callable
        ``residual(Z, targets, R) -> value`` with Z, targets, R of shape (classes, samples of the batch): returns
        the loss, averaged as you like, and fills R = d value / d Z. It is compiled with numba.
    targets : array_like, shape (classes, classes) or (classes, samples), optional
        Targets by class or by sample; one-hot by default.

    Raises
    ------
    IncompatibleError
        If the function does not compile or R is not the derivative of its value: both are tried at random
        logits when a problem is built with it. Whether the loss is shift-invariant is probed there too.

    Examples
    --------
    >>> import numpy as np
    >>> def squared(Z, targets, R):
    ...     R[:] = (Z - targets) / Z.shape[1]
    ...     return 0.5 * np.sum((Z - targets) ** 2) / Z.shape[1]
    >>> loss, R = UserLoss(squared), np.empty((2, 1))
    >>> float(loss.residual(np.ones((2, 1)), np.zeros((2, 1)), R)), R.tolist()
    (1.0, [[1.0], [1.0]])
    """

    residual: Callable[..., Any]
    targets: Any = None
    name: ClassVar[str] = "user loss"

    def __post_init__(self) -> None:
        if not inspect.isfunction(getattr(self.residual, "py_func", self.residual)):
            raise invalid(
                "UserLoss.residual", self.residual, "a function, plain or decorated with numba.njit"
            )
        if self.targets is not None and not isinstance(self.targets, Content):
            object.__setattr__(self, "targets", Content("UserLoss.targets", self.targets))

    @cached_property
    def shift_invariant(self) -> bool:
        """Whether the loss is unchanged, to round-off, at random logits shifted sample by sample."""
        from ufm.kernels.probe import shift_invariant

        return shift_invariant(self)

    @property
    def why(self) -> str:
        """What the probe found."""
        found = "unchanged" if self.shift_invariant else "changed"
        return (
            f"the value at random logits was {found} when a constant was added to all logits of each sample"
        )


def as_loss(where: str, loss: Any) -> CrossEntropy | MSE | UserLoss:
    """Return the loss meant by a name ("ce", "mse"), a loss object or a user's function."""
    if isinstance(loss, CrossEntropy | MSE | UserLoss):
        return loss
    if isinstance(loss, str):
        named: dict[str, type[CrossEntropy | MSE]] = {"ce": CrossEntropy, "mse": MSE}
        if loss in named:
            return named[loss]()
    elif callable(loss) and not isinstance(loss, type):
        return UserLoss(loss)
    raise invalid(
        where, loss, "'ce', 'mse', CrossEntropy(...), MSE(...) or a function residual(Z, targets, R)"
    )
