"""Every error a user can meet, and the sentences a run's status speaks in.

A message names the object and field, the value given and what is allowed.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ufm.trajectory import Trajectory


class UfmError(Exception):
    """Root of all errors raised by this package.

    Examples
    --------
    >>> import ufm
    >>> try:
    ...     ufm.UFM(classes=1, width=4)
    ... except ufm.UfmError as error:
    ...     print(error)
    UFM.classes is 1; allowed: a whole number >= 2.
    """


class InvalidProblemError(UfmError, ValueError):
    """A field holds a value that is not allowed.

    Examples
    --------
    >>> import ufm
    >>> ufm.GD(-0.1)
    Traceback (most recent call last):
        ...
    ufm.errors.InvalidProblemError: GD.lr is -0.1; allowed: a finite number >= 0, or a schedule such as StepDecay(0.1).
    """


class IncompatibleError(UfmError, TypeError):
    """Two valid objects cannot be used together, or an option would be ignored.

    Examples
    --------
    >>> import ufm
    >>> ufm.solutions.zero(ufm.UFM(3, 2), ufm.Decoupled(0.1))
    Traceback (most recent call last):
        ...
    ufm.errors.IncompatibleError: zero: decay is Decoupled(0.1); allowed: Coupled, the decay in the objective.
    """


class StorageError(UfmError, OSError):
    """A file cannot be read, is not ours, or cannot be written.

    Examples
    --------
    >>> import ufm
    >>> ufm.load("nowhere.npz")
    Traceback (most recent call last):
        ...
    ufm.errors.StorageError: nowhere.npz does not exist; allowed: a file written by Trajectory.save.
    """


class LostWorkerError(UfmError, RuntimeError):
    """A worker of an executor died before it had finished.

    Examples
    --------
    >>> import ufm
    >>> issubclass(LostWorkerError, ufm.UfmError)
    True
    """


class _RunEndedError(UfmError):
    """A run that ended early; `trajectory` holds everything recorded until then."""

    def __init__(self, message: str, trajectory: Trajectory) -> None:
        super().__init__(message)
        self.trajectory = trajectory

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.trajectory)


class DivergedError(_RunEndedError, ArithmeticError):
    """The run left the finite numbers.

    Parameters
    ----------
    message : str
        One sentence.
    trajectory : Trajectory, Flow or SymmetricTrajectory
        up to where the run ended.

    Examples
    --------
    >>> import ufm
    >>> try:
    ...     ufm.simulate(ufm.UFM(3, 2, loss="mse"), ufm.GD(1e6), steps=100, throw=True)
    ... except ufm.DivergedError as error:
    ...     print(error.trajectory.status.name)
    diverged
    """


class InterruptedRunError(_RunEndedError, KeyboardInterrupt):
    """Ctrl-C stopped the run; it can be continued with `error.trajectory.resume()`.

    Parameters
    ----------
    message : str
        One sentence.
    trajectory : Trajectory
        up to where the run was stopped.

    Examples
    --------
    >>> import ufm
    >>> issubclass(InterruptedRunError, KeyboardInterrupt), issubclass(InterruptedRunError, ufm.UfmError)
    (True, True)
    """


def invalid(where: str, value: Any, allowed: str) -> InvalidProblemError:
    """Build the one sentence a bad value is answered with.

    Parameters
    ----------
    where : str
        Object and field, for example ``"UFM.classes"``.
    value : Any
        What was given.
    allowed : str
        What is allowed, as the end of the sentence.

    Examples
    --------
    >>> str(invalid("GD.lr", -1, "a finite number >= 0"))
    'GD.lr is -1; allowed: a finite number >= 0.'
    """
    try:
        text = re.sub(r"\s*\n\s*", " ", repr(value))
    except Exception:
        # nested too deeply, an int of too many digits, or a class whose repr fails
        text = f"a {type(value).__name__} that cannot be shown"
    if len(text) > 120:
        text = text[:117] + "..."
    return InvalidProblemError(f"{where} is {text}; allowed: {allowed}.")
