"""The result of a run: recorded states, losses, how it ended, and what is needed to go on or to repeat it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ufm.checks import whole
from ufm.errors import invalid
from ufm.normalisation import behind
from ufm.problems import Blocks, Problem
from ufm.run import Run

if TYPE_CHECKING:
    import xarray


@dataclass(frozen=True)
class Status:
    """How a run ended.

    Parameters
    ----------
    name : {"completed", "diverged", "stopped", "interrupted"}
        In one word.
    step : int
        Updates taken when it ended.
    reason : str
        In one sentence.
    """

    name: str
    step: int
    reason: str

    def __str__(self) -> str:
        return f"{self.name} at step {self.step}: {self.reason}"


@dataclass(frozen=True)
class End:
    """Full state of the integrator after the last update, from which a run continues bit for bit.

    Parameters
    ----------
    step : int
        Updates taken.
    theta : ndarray, shape (size of all blocks,)
        Flat state, trained blocks first.
    m, v : ndarray, shape (trained size,)
        Buffers of the optimizer.
    unit : ndarray, shape (trained size,) or (0,)
        Natural logarithm of the unit in which m is held; empty while every unit is 1.
    """

    step: int
    theta: np.ndarray
    m: np.ndarray
    v: np.ndarray
    unit: np.ndarray


@dataclass(frozen=True, eq=False)
class Trajectory:
    """A simulated run.

    Record i is the state after ``steps[i]`` updates; step 0 is the start; the first and the last step reached
    are always recorded. ``loss[i]`` belongs to record i and is taken over all samples.

    Parameters
    ----------
    run : Run
        What was simulated.
    steps : ndarray of int, shape (records,)
        Recorded steps.
    states : ndarray, shape (records, trained size)
        Trained blocks, flat.
    fit, penalty : ndarray, shape (records,)
        Loss over the data, and sum of lam/2 ||B||_F^2 of the coupled decay.
    status : Status
        How the run ended.
    stats : mapping
        Seconds, steps per second, compile seconds, counts of the sign arithmetic.
    provenance : mapping
        Versions and machine, and what is needed to rerun.
    end : End
        State of the integrator after the last update.

    Examples
    --------
    >>> import ufm
    >>> run = ufm.simulate(ufm.UFM(classes=3, width=4), ufm.GD(0.1), steps=20, record=ufm.Every(10))
    >>> run["W"].shape, run.loss.shape, run.steps.tolist()
    ((3, 3, 4), (3,), [0, 10, 20])
    """

    run: Run
    steps: np.ndarray
    states: np.ndarray
    fit: np.ndarray
    penalty: np.ndarray
    status: Status
    stats: Mapping[str, Any] = field(repr=False)
    provenance: Mapping[str, Any] = field(repr=False)
    end: End = field(repr=False)

    def __post_init__(self) -> None:
        self._protect()

    def _protect(self) -> None:
        for array in (self.steps, self.states, self.fit, self.penalty):
            array.setflags(write=False)

    def __getstate__(self) -> dict[str, Any]:
        """The fields alone: the blocks are views of the states, which a pickle would repeat."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state)
        self._protect()

    def judged(self) -> Run:
        """The run with its records, as claims read it; not kept here, so that a dropped trajectory is freed at once.

        Returns
        -------
        Run

        Examples
        --------
        >>> import ufm
        >>> run = ufm.simulate(ufm.UFM(3, 4), ufm.GD(0.1), steps=5)
        >>> run.judged().trajectory is run
        True
        """
        return replace(self.run, trajectory=self)

    @property
    def problem(self) -> Problem:
        """What was minimised."""
        problem: Problem = self.run.problem
        return problem

    @property
    def optimizer(self) -> Any:
        """How steps were taken."""
        return self.run.optimizer

    @property
    def loss(self) -> np.ndarray:
        """Objective at each record: fit + penalty, shape (records,)."""
        loss: np.ndarray = self.fit + self.penalty
        return loss

    @cached_property
    def blocks(self) -> Blocks:
        """Recorded blocks by name, each of shape (records, ...); frozen ones are repeated without a copy."""
        trained = self.problem.unpack(self.states)
        frozen = {
            name: np.broadcast_to(value, (len(self.steps), *value.shape))
            for name, value in self.problem.frozen_values.items()
        }
        arrays = {**trained, **frozen}
        return Blocks({name: arrays[name] for name in self.problem.blocks}, self.problem.last)

    def __getitem__(self, name: str) -> np.ndarray:
        return self.blocks[name]

    def __len__(self) -> int:
        return len(self.steps)

    def state(self, i: int) -> Blocks:
        """All blocks at record i by name.

        Parameters
        ----------
        i : int
            Number of the record; negative ones count from the last.

        Returns
        -------
        Blocks
            Arrays of the shapes ``problem.shapes``.

        Raises
        ------
        IndexError
            For a record that is not there.

        Examples
        --------
        >>> import ufm
        >>> run = ufm.simulate(ufm.UFM(3, 4), ufm.GD(0.1), steps=5)
        >>> run.state(-1)["W"].shape
        (3, 4)
        """
        try:
            return Blocks({name: value[i] for name, value in self.blocks.items()}, self.problem.last)
        except IndexError:
            raise IndexError(f"Trajectory.state.i is {i!r}; allowed: 0 ... {len(self) - 1}.") from None

    def features(self, layer: int | None = None, records: slice = slice(None)) -> np.ndarray:
        """Input of a layer, after normalisation and activation, at all or some records.

        Parameters
        ----------
        layer : int, optional
            l for the input s(H_l) of W_l; by default that of the last layer.
        records : slice
            Which records; all of a deep run at once can take much more memory than the run itself.

        Returns
        -------
        ndarray, shape (records, width of the layer's input, samples)

        Raises
        ------
        InvalidProblemError
            For a layer that is not there, or records that are no slice.

        Examples
        --------
        >>> import ufm
        >>> run = ufm.simulate(ufm.DUFM(classes=3, width=4, depth=2, per_class=2), ufm.GD(0.1), steps=5)
        >>> run.features(layer=1, records=slice(-1, None)).shape
        (1, 4, 6)
        """
        depth = self.problem.depth
        layer = depth if layer is None else whole("Trajectory.features.layer", layer, 1, depth)
        if not isinstance(records, slice):
            raise invalid("Trajectory.features.records", records, "a slice, such as slice(-1, None)")
        blocks = {name: block[records] for name, block in self.blocks.items()}
        X = behind(self.problem, blocks, 1, blocks["H"])
        for below in range(1, layer):
            X = behind(self.problem, blocks, below + 1, blocks[f"W{below}"] @ X)
            if self.problem.activation == "relu":
                X = np.maximum(X, 0.0)
        return X

    def logits(self) -> np.ndarray:
        """Logits at each record, shape (records, classes, samples).

        Returns
        -------
        ndarray, shape (records, classes, samples)

        Examples
        --------
        >>> import ufm
        >>> ufm.simulate(ufm.UFM(classes=3, width=4, per_class=2), ufm.GD(0.1), steps=5).logits().shape
        (6, 3, 6)
        """
        Z: np.ndarray = self["W"] @ self.features()
        if self.problem.bias:
            Z = Z + self["b"][..., None]
        return Z

    def resume(self, steps: int | None = None, **options: Any) -> Trajectory:
        """Continue where the run ended, bit for bit as if it had never stopped.

        Parameters
        ----------
        steps : int, optional
            Total number of updates, those already taken included; by default those first asked for.
        **options
            ``progress``, ``throw`` and ``callback`` of `simulate`.

        Returns
        -------
        Trajectory
            Of all steps, those before included.

        Raises
        ------
        IncompatibleError
            If the run diverged, or a schedule given in fractions would change steps already taken.

        Examples
        --------
        >>> import ufm
        >>> run = ufm.simulate(ufm.UFM(3, 4), ufm.GD(0.1), steps=5)
        >>> run.resume(8).steps.tolist()
        [0, 1, 2, 3, 4, 5, 6, 7, 8]
        """
        from ufm.simulate import resume

        return resume(self, steps, **options)

    def save(self, path: str | Path) -> Path:
        """Write the run to an ``.npz`` file, whole or not at all; see `ufm.load`.

        Parameters
        ----------
        path : str or Path
            The file; by convention it ends in ``.npz``.

        Returns
        -------
        Path
            Of the file.

        Raises
        ------
        StorageError
            If it cannot be written.

        Examples
        --------
        >>> import tempfile, ufm
        >>> run = ufm.simulate(ufm.UFM(3, 4), ufm.GD(0.1), steps=5)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     print(run.save(f"{folder}/run.npz").name)
        run.npz
        """
        from ufm.storage import save

        return save(self, path)

    def to_xarray(self) -> xarray.Dataset:
        """Blocks, losses and, where there are classes, NC0 as a labelled dataset over the recorded steps.

        Returns
        -------
        xarray.Dataset

        Examples
        --------
        >>> import ufm
        >>> data = ufm.simulate(ufm.UFM(3, 4), ufm.GD(0.1), steps=5).to_xarray()
        >>> data["nc0"].dims, data["W1"].dims
        (('step',), ('step', 'class', 'feature1'))
        """
        import xarray

        from ufm.losses import Regression
        from ufm.metrics import nc0

        outputs = "output" if isinstance(self.problem.loss, Regression) else "class"

        variables: dict[str, Any] = {
            "fit": ("step", self.fit),
            "penalty": ("step", self.penalty),
            "loss": ("step", self.loss),
        }
        coordinates: dict[str, Any] = {"step": self.steps}
        if outputs == "class":
            variables["nc0"] = ("step", nc0(self))
            coordinates["label"] = ("sample", self.problem.labels)
        layers = {name: layer for layer, name in self.problem.scales.items()}
        for name, values in self.blocks.items():
            if name == "H":
                axes = ["feature1", "sample"]
            elif name == "b":
                axes = [outputs]
            elif name in layers:
                axes = [f"feature{layers[name]}"]
            else:
                layer = int(name[1:])
                axes = [outputs if layer == self.problem.depth else f"feature{layer + 1}", f"feature{layer}"]
            variables[name] = (["step", *axes], values)
        attributes = {"status": str(self.status), "run": repr(self.run), "scale": "dimensionless"}
        return xarray.Dataset(variables, coordinates, attributes)

    def __str__(self) -> str:
        lines = [
            f"Trajectory of {self.run.optimizer!r}, {self.run.decay!r}",
            f"  {self.run.problem!r}",
            f"  {self.status}",
            f"  {len(self)} records of steps {self.steps[0]} ... {self.steps[-1]}, "
            f"loss {self.loss[0]:.6g} -> {self.loss[-1]:.6g}",
        ]
        for name, value in self.blocks.items():
            kind = "frozen" if name in self.problem.frozen_values else f"{value.nbytes / 2**20:.3g} MiB"
            lines.append(f"  {name:3s} {value.dtype} {value.shape}, {kind}")
        return "\n".join(lines)
