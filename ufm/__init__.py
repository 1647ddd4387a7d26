"""Discrete-time training dynamics of unconstrained features models, judged against the theory of neural collapse."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ufm.decay import Coupled, Decoupled, Mixed
from ufm.errors import (
    DivergedError,
    IncompatibleError,
    InterruptedRunError,
    InvalidProblemError,
    LostWorkerError,
    StorageError,
    UfmError,
)
from ufm.initial import Gaussian, Given, LinearDefault, SimplexETF, Spectral, Start, Zeros, simplex_etf, walsh
from ufm.kernels import blas as _blas
from ufm.losses import MSE, CrossEntropy, UserLoss
from ufm.normalisation import BatchNorm
from ufm.optimizers import GD, Adam, Blockwise, Elementwise, Momentum, NormalisedGD, SignGD, Signum
from ufm.problems import DUFM, UFM, RegressionUFM
from ufm.record import At, Every, LogSpaced
from ufm.schedules import Cosine, Rates, StepDecay
from ufm.simulate import simulate
from ufm.targets import correlated_targets
from ufm.trajectory import Trajectory

if TYPE_CHECKING:
    from ufm import claims, metrics, plotting, solutions, theory
    from ufm.certificates import Certificate, certify
    from ufm.conventions import convention
    from ufm.fenchel import optimality
    from ufm.flow import Flow
    from ufm.reduced import SymmetricTrajectory, simulate_symmetric
    from ufm.storage import load
    from ufm.sweeps import Zipped, sweep

# imported when first used: modules, and functions whose modules are not needed to describe a run
_MODULES = ("claims", "metrics", "plotting", "solutions", "sweeps", "theory")
_FUNCTIONS = {
    "Certificate": "ufm.certificates",
    "certify": "ufm.certificates",
    "convention": "ufm.conventions",
    "Flow": "ufm.flow",
    "load": "ufm.storage",
    "optimality": "ufm.fenchel",
    "SymmetricTrajectory": "ufm.reduced",
    "simulate_symmetric": "ufm.reduced",
    "Zipped": "ufm.sweeps",
    "sweep": "ufm.sweeps",
}

_blas.module()  # every kernel calls it; without it here the first run would wait for it

# a lazy attribute would be shadowed by the module of the same name, so these come at once
from ufm.compare import compare  # noqa: E402
from ufm.environment import environment  # noqa: E402
from ufm.flow import flow  # noqa: E402
from ufm.minimise import minimise  # noqa: E402
from ufm.overview import overview  # noqa: E402

__all__ = [
    "DUFM", "GD", "MSE", "UFM", "Adam", "At", "BatchNorm", "Blockwise", "Certificate", "Cosine",
    "Coupled", "CrossEntropy", "Decoupled", "DivergedError", "Elementwise", "Every", "Flow", "Gaussian",
    "Given", "IncompatibleError", "InterruptedRunError", "InvalidProblemError", "LinearDefault",
    "LogSpaced", "LostWorkerError", "Mixed", "Momentum", "NormalisedGD", "Rates", "RegressionUFM",
    "SignGD", "Signum", "SimplexETF", "Spectral", "Start", "StepDecay", "StorageError",
    "SymmetricTrajectory", "Trajectory", "UfmError", "UserLoss", "Zeros", "Zipped", "certify", "claims",
    "compare", "convention", "correlated_targets", "environment", "flow", "load", "metrics", "minimise",
    "optimality", "overview", "plotting", "simplex_etf", "simulate", "simulate_symmetric", "solutions", "sweep",
    "theory", "walsh",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from ufm.environment import version

        return version()
    if name in _MODULES:
        return importlib.import_module(f"ufm.{name}")
    if name in _FUNCTIONS:
        return getattr(importlib.import_module(_FUNCTIONS[name]), name)
    raise AttributeError(f"module 'ufm' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
