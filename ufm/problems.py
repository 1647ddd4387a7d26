"""What is minimised: chains of linear layers on top of free or frozen features.

    H_1 = H (d x N),   H_{l+1} = W_l s(H_l),   Z = W_L s(H_L) + b 1^T,   fit = (1/N) sum_i ell(z_i, y_i)

with s the identity or ReLU, never on H_1 and never on Z. Samples are sorted by class. Blocks are named
``H``, ``W1`` ... ``WL`` and ``b``; ``W`` is the last layer at any depth. Any H_l may be replaced by its batch
normalisation, scaled by the blocks ``gamma``, ``gamma2`` ...; see `ufm.normalisation`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import pairwise
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ufm.arrays import Content
from ufm.checks import choice, finite_array, flag, one_or_several, whole
from ufm.errors import IncompatibleError, InvalidProblemError, invalid
from ufm.initial import Given, draw_block, is_initialiser
from ufm.losses import MSE, CrossEntropy, Regression, UserLoss, as_loss
from ufm.normalisation import BatchNorm, constant_row, refuse_signs, scale_name

if TYPE_CHECKING:
    from ufm.decay import Decay


_LARGEST_BYTES = 2**40
_LARGEST_DEPTH = 10_000


class Blocks(Mapping[str, np.ndarray]):
    """Named blocks of one state; ``W`` is another name of the last layer.

    Examples
    --------
    >>> state = Blocks({"H": np.zeros((2, 4)), "W1": np.ones((4, 2))}, last="W1")
    >>> sorted(state), state["W"].shape
    (['H', 'W1'], (4, 2))
    """

    def __init__(self, arrays: Mapping[str, np.ndarray], last: str) -> None:
        self._arrays = dict(arrays)
        self._last = last

    def __getitem__(self, name: str) -> np.ndarray:
        name = self._last if name == "W" else name
        if name not in self._arrays:
            raise KeyError(f"{name}; blocks are {', '.join(self._arrays)}")
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __repr__(self) -> str:
        return f"Blocks({', '.join(f'{name}: {value.shape}' for name, value in self._arrays.items())})"


class Signs(NamedTuple):
    """Signs of a gradient by block, and which of them round-off cannot decide; see `Problem.signs`."""

    sign: Blocks
    undecided: Blocks


class Problem:
    """What every chain has in common; build a `UFM` or a `DUFM`.

    Attributes
    ----------
    depth : int
        Number L of weight matrices.
    widths : tuple of int
        Rows of H_1 ... H_L.
    samples : int
        Number N of samples.
    labels : ndarray, shape (samples,)
        Class of each sample, in increasing order.
    blocks, trained, last
        Names of all blocks, of the trained ones, and of the last layer.
    """

    classes: int
    per_class: int | Sequence[int]
    loss: Any
    bias: bool
    features: Any
    classifier: Any
    frozen: Any
    activation: str
    depth: int
    widths: tuple[int, ...]
    normalisation: BatchNorm | None = None

    def _check(self, depth: int) -> None:
        """Validate and normalise the fields that all chains share."""
        self._check_normalisation(depth)
        name = type(self).__name__
        put = object.__setattr__
        put(self, "classes", whole(f"{name}.classes", self.classes, 2))
        put(self, "per_class", one_or_several(f"{name}.per_class", self.per_class, self.classes, "size"))
        self._check_memory()
        put(self, "loss", as_loss(f"{name}.loss", self.loss))
        targets = getattr(self.loss, "targets", None)
        allowed = ((self.classes, self.classes), (self.classes, self.samples))
        if targets is not None and targets.shape not in allowed:
            raise invalid(
                f"{name}.loss.targets",
                f"an array of shape {targets.shape}",
                f"shape {allowed[0]} (by class) or {allowed[1]} (by sample)",
            )
        self._check_blocks()
        if isinstance(self.loss, UserLoss):
            from ufm.kernels.probe import check_residual

            check_residual(self.loss)

    def _check_blocks(self) -> None:
        """Validate and normalise the bias and the frozen blocks."""
        name, put = type(self).__name__, object.__setattr__
        put(self, "bias", flag(f"{name}.bias", self.bias))
        for field in ("features", "classifier"):
            put(self, field, _held(f"{name}.{field}", getattr(self, field)))
        if self.frozen is not None:
            put(self, "frozen", _held_by_name(f"{name}.frozen", self.frozen))
        _ = self.frozen_values
        if not self.trained:
            raise IncompatibleError(f"{name}: every block is frozen; allowed: at least one trained block.")

    def _check_normalisation(self, depth: int) -> None:
        """Refuse what is no `BatchNorm`, and layers that there are not."""
        where, found = f"{type(self).__name__}.normalisation", self.normalisation
        if found is None:
            return
        if not isinstance(found, BatchNorm):
            raise invalid(where, found, "None or BatchNorm()")
        if max(found.layers) > depth:
            raise invalid(f"{where}.layers", found.layers, f"layers from 1 to the depth, {depth}")

    def _check_memory(self) -> None:
        """Refuse sizes that no machine holds before anything of these sizes is built."""
        sizes = (*self.widths, self.classes)
        numbers = sum(sizes) * self.samples + sum(rows * columns for rows, columns in pairwise(sizes))
        if 8 * numbers > _LARGEST_BYTES:
            raise invalid(
                f"{type(self).__name__}: GiB of one copy of features, weights and logits",
                8 * numbers >> 30,
                f"at most {_LARGEST_BYTES >> 30}, with smaller classes, width, per_class or depth",
            )

    def __getstate__(self) -> dict[str, Any]:
        """The fields alone: what was computed from them is computed again, and read-only again."""
        return {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]

    @cached_property
    def class_sizes(self) -> tuple[int, ...]:
        """Number of samples of each class."""
        if isinstance(self.per_class, int):
            return (self.per_class,) * self.classes
        return tuple(self.per_class)

    @cached_property
    def samples(self) -> int:
        """Number N of samples."""
        if isinstance(self.per_class, int):
            return self.per_class * self.classes
        return sum(self.per_class)

    @cached_property
    def labels(self) -> np.ndarray:
        """Class of each sample, shape (samples,)."""
        labels = np.repeat(np.arange(self.classes), self.class_sizes)
        labels.setflags(write=False)
        return labels

    @cached_property
    def last(self) -> str:
        """Name of the last layer's weights."""
        return f"W{self.depth}"

    @cached_property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Shape of every block by name."""
        sizes = (*self.widths, self.classes)
        found: dict[str, tuple[int, ...]] = {"H": (sizes[0], self.samples)}
        for layer in range(1, self.depth + 1):
            found[f"W{layer}"] = (sizes[layer], sizes[layer - 1])
        if self.bias:
            found["b"] = (self.classes,)
        found |= {name: (sizes[layer - 1],) for layer, name in self.scales.items()}
        return found

    @cached_property
    def scales(self) -> Mapping[int, str]:
        """Name of the scale of every H_l that is normalised, by l."""
        layers = () if self.normalisation is None else self.normalisation.layers
        return {layer: scale_name(layer) for layer in layers}

    @cached_property
    def blocks(self) -> tuple[str, ...]:
        """Names of all blocks."""
        return tuple(self.shapes)

    @cached_property
    def frozen_values(self) -> Mapping[str, np.ndarray]:
        """Values of the frozen blocks by name."""
        name = type(self).__name__
        given = [("H", "features", self.features), (self.last, "classifier", self.classifier)]
        given += [
            (self.last if block == "W" else block, f"frozen[{block!r}]", value)
            for block, value in self.frozen or ()
        ]
        found: dict[str, np.ndarray] = {}
        for block, field, initialiser in given:
            if initialiser is None:
                continue
            if block not in self.shapes:
                raise invalid(f"{name}.{field}", block, f"blocks {', '.join(self.blocks)}")
            if block in found:
                raise IncompatibleError(
                    f"{name}.{field}: block {block} is frozen already; allowed: each block once."
                )
            value = draw_block(self, block, initialiser, 0)
            if not np.array_equal(value, draw_block(self, block, initialiser, 1)):
                raise invalid(
                    f"{name}.{field}", initialiser, "a start without randomness, such as Given(array)"
                )
            value.setflags(write=False)
            found[block] = value
        return found

    @cached_property
    def trained(self) -> tuple[str, ...]:
        """Names of the trained blocks."""
        return tuple(block for block in self.blocks if block not in self.frozen_values)

    @cached_property
    def order(self) -> tuple[str, ...]:
        """Order of the blocks in the flat state: trained ones first."""
        return self.trained + tuple(self.frozen_values)

    @cached_property
    def offsets(self) -> Mapping[str, int]:
        """Where each block begins in the flat state."""
        ends = np.cumsum([0] + [int(np.prod(self.shapes[block])) for block in self.order])
        return dict(zip(self.order, map(int, ends[:-1]), strict=True))

    @cached_property
    def size(self) -> int:
        """Length of the flat state of the trained blocks."""
        return sum(int(np.prod(self.shapes[block])) for block in self.trained)

    @cached_property
    def targets(self) -> np.ndarray | None:
        """Targets by sample, shape (classes, samples); None where class labels are enough."""
        given = getattr(self.loss, "targets", None)
        if given is not None:
            columns = given.array
            if columns.shape[1] != self.samples:
                columns = columns[:, self.labels]
            # A copy: kernels are compiled for arrays that can be written to, and Content is read-only.
            return np.array(columns, order="C")
        if isinstance(self.loss, UserLoss):
            return np.ascontiguousarray(np.eye(self.classes)[:, self.labels])
        return None

    def pack(self, state: Mapping[str, Any], where: str = "state") -> np.ndarray:
        """Flat float64 vector of all blocks, trained ones first.

        Parameters
        ----------
        state : mapping of str to array_like
            Every trained block by name, of its shape in `shapes`; frozen blocks may be left out.
        where : str
            What a sentence about the state calls it.

        Returns
        -------
        ndarray, shape (size of all blocks,)

        Raises
        ------
        InvalidProblemError
            For a block that is missing, unknown, frozen at another value, or of another shape.

        Examples
        --------
        >>> UFM(2, 1).pack({"H": [[1.0, 2.0]], "W": [[3.0], [4.0]]}).tolist()
        [1.0, 2.0, 3.0, 4.0]
        """
        if not isinstance(state, Mapping):
            raise invalid(where, state, f"arrays by block name, {', '.join(self.trained)}")
        named = {self.last if name == "W" else name: value for name, value in state.items()}
        if len(named) < len(state):
            raise IncompatibleError(f"{where} names {self.last} twice, also as W; allowed: each block once.")
        for name in named:
            if name not in self.shapes:
                raise invalid(where, name, f"blocks {', '.join(self.blocks)}")
        parts = []
        for block in self.order:
            if block not in named:
                if block not in self.frozen_values:
                    raise invalid(f"{where}.{block}", None, f"an array of shape {self.shapes[block]}")
                parts.append(self.frozen_values[block].ravel())
                continue
            value = finite_array(f"{where}.{block}", named[block])
            if value.shape != self.shapes[block]:
                one = ", one state, such as run.state(-1)" if value.shape[1:] == self.shapes[block] else ""
                raise invalid(
                    f"{where}.{block}", f"an array of shape {value.shape}", f"shape {self.shapes[block]}{one}"
                )
            if block in self.frozen_values and not np.array_equal(value, self.frozen_values[block]):
                raise IncompatibleError(
                    f"{where}.{block} is another than the frozen one; allowed: none, or that value."
                )
            parts.append(value.ravel())
        return np.concatenate(parts)

    def unpack(self, theta: np.ndarray) -> Blocks:
        """Named blocks as views of flat vectors with any leading axes, shape (..., size or more).

        Blocks that lie beyond the end of the vector (frozen ones) are not included.

        Parameters
        ----------
        theta : ndarray, shape (..., size of the trained blocks or more)
            Flat states.

        Returns
        -------
        Blocks
            Views of shape (..., rows, columns), by name.

        Examples
        --------
        >>> UFM(2, 1).unpack(np.array([1.0, 2.0, 3.0, 4.0]))["W"].tolist()
        [[3.0], [4.0]]
        """
        arrays = {}
        for block in self.blocks:
            start = self.offsets[block]
            stop = start + int(np.prod(self.shapes[block]))
            if stop <= theta.shape[-1]:
                arrays[block] = theta[..., start:stop].reshape(*theta.shape[:-1], *self.shapes[block])
        return Blocks(arrays, self.last)

    def value(self, state: Mapping[str, Any], decay: Decay | None = None) -> float:
        """Objective at a state: fit plus the penalty of the coupled decay.

        Parameters
        ----------
        state : mapping of str to array_like
            Trained blocks by name, each of its shape in `shapes`.
        decay : Coupled, Decoupled or Mixed, optional
            Only its coupled part is an objective.

        Returns
        -------
        float

        Examples
        --------
        >>> UFM(2, 1, loss="mse").value({"H": [[0.0, 0.0]], "W": [[0.0], [0.0]]})
        0.5
        """
        fit, _ = self._evaluated("value", self.pack(state))
        return fit + self.penalty(state, decay)

    def _evaluated(self, where: str, theta: np.ndarray) -> tuple[float, np.ndarray]:
        """Fit and its gradient, or one sentence where a row has no normalised form."""
        from ufm.kernels.evaluate import evaluate

        fit, gradient = evaluate(self, theta)
        if np.isnan(fit) and (cause := constant_row(self)):
            raise InvalidProblemError(f"{type(self).__name__}.{where}: the logits are not finite{cause}.")
        return fit, gradient

    def penalty(self, state: Mapping[str, Any], decay: Decay | None = None) -> float:
        """Sum of lam/2 ||B||_F^2 over the blocks with coupled decay.

        Parameters
        ----------
        state, decay
            As in `value`.

        Returns
        -------
        float

        Examples
        --------
        >>> from ufm.decay import Coupled
        >>> UFM(2, 1).penalty({"H": [[1.0, 2.0]], "W": [[3.0], [4.0]]}, Coupled(W=0.1))
        1.25
        """
        from ufm.decay import per_block

        coupled, _ = per_block(decay, self)
        blocks = self.unpack(self.pack(state))
        return sum(0.5 * lam * float(np.sum(blocks[name] ** 2)) for name, lam in coupled.items() if lam)

    def gradient(self, state: Mapping[str, Any], decay: Decay | None = None) -> Blocks:
        """Gradient of `value` at a state, for the trained blocks by name.

        Parameters
        ----------
        state : mapping of str to array_like
            Trained blocks by name, each of its shape in `shapes`.
        decay : Coupled, Decoupled or Mixed, optional
            Only its coupled part is an objective.

        Returns
        -------
        Blocks
            Arrays of the shapes of the trained blocks.

        Examples
        --------
        >>> found = UFM(2, 1, loss="mse").gradient({"H": [[1.0, 0.0]], "W": [[0.0], [0.0]]})
        >>> found["W"].tolist()
        [[-0.5], [0.0]]
        """
        from ufm.decay import per_block

        theta = self.pack(state)
        coupled, _ = per_block(decay, self)
        _, gradient = self._evaluated("gradient", theta)
        found, blocks = self.unpack(gradient), self.unpack(theta)
        return Blocks({name: found[name] + coupled[name] * blocks[name] for name in self.trained}, self.last)

    def signs(
        self,
        state: Mapping[str, Any],
        decay: Decay | None = None,
        *,
        samples: Sequence[int] | None = None,
        dtype: str = "float64",
    ) -> Signs:
        """Signs of the gradient as SignGD takes them, and which of them round-off cannot decide.

        They come from the loops of a run, exponents beyond underflow included. An entry is undecided where it is
        no larger than a bound of its own error, from the rounding of every product and sum that it is made of
        (`ufm.kernels.doubt` derives it); an entry whose terms cancel exactly is undecided, one whose terms are
        all 0, as behind a dead ReLU unit, is decided. Of a `UserLoss`, whose arithmetic is not known, the bound takes
        residuals to be right to a few units in the last place of a sample's largest: near its minimum, where
        they cancel, it is too small. ``run.stats["undecided_signs"]`` of SignGD sums these masks over the
        steps taken; from where a run carries exponents on it goes on doing so, also at states that alone would
        not need them.

        Parameters
        ----------
        state : mapping of str to array_like
            Trained blocks by name, each of its shape in `shapes`.
        decay : Coupled, Decoupled or Mixed, optional
            Its coupled part joins the gradient.
        samples : sequence of int, optional
            A mini-batch; all samples by default.
        dtype : {"float64", "float32"}
            Precision in which the state is held and the gradient computed.

        Returns
        -------
        Signs
            ``.sign`` (int8: -1, 0, 1) and ``.undecided`` (bool): arrays of the shapes of the trained blocks.

        Raises
        ------
        InvalidProblemError
            For a state that `pack` refuses or whose logits are not finite, and for samples that do not exist.

        Examples
        --------
        >>> problem = UFM(classes=3, width=2, features=[[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]])
        >>> found = problem.signs({"W": [[50.0, 0.0], [0.0, 50.0], [0.0, 0.0]]})
        >>> found.sign["W"]
        array([[ 1,  1],
               [ 1,  1],
               [-1, -1]], dtype=int8)
        >>> bool(found.undecided["W"].any())
        False
        """
        from ufm.kernels.signs import signs

        choice("signs.dtype", dtype, ("float64", "float32"))
        refuse_signs("signs", self)
        chosen = range(self.samples) if samples is None else samples
        allowed = f"different whole numbers from 0 to {self.samples - 1}"
        try:
            numbers = [whole("signs.samples", number, 0, self.samples - 1) for number in chosen]
        except (TypeError, InvalidProblemError):
            raise invalid("signs.samples", samples, allowed) from None
        if not numbers or len(set(numbers)) < len(numbers):
            raise invalid("signs.samples", samples, allowed)
        sign, undecided = signs(self, self.pack(state), decay, np.array(sorted(numbers)), dtype)
        found, mask = self.unpack(sign), self.unpack(undecided)
        return Signs(
            Blocks({name: found[name] for name in self.trained}, self.last),
            Blocks({name: mask[name] for name in self.trained}, self.last),
        )

    def formula(self, decay: Decay | None = None) -> str:
        """The objective with every 1/N, 1/2 and lambda where it stands.

        Parameters
        ----------
        decay : Coupled, Decoupled or Mixed, optional
            Where weight decay acts.

        Returns
        -------
        str

        Examples
        --------
        >>> from ufm.decay import Coupled
        >>> UFM(classes=10, width=64, per_class=5).formula(Coupled(W=5e-4))
        'F = (1/50) sum_i CE(z_i, y_i) + (0.0005/2) ||W1||_F^2,  Z = W1 H'
        """
        from ufm.decay import per_block

        coupled, decoupled = per_block(decay, self)
        chain = "H"
        for layer in range(1, self.depth + 1):
            chain = f"diag({self.scales[layer]}) BN({chain})" if layer in self.scales else chain
            inner = f"relu({chain})" if layer > 1 and self.activation == "relu" else chain
            chain = f"W{layer} {inner}"
        chain += " + b 1^T" if self.bias else ""
        if isinstance(self.loss, MSE):
            fit = "||Z - Y||_F^2" if self.loss.reduction == "sum" else f"(1/{self.samples}) ||Z - Y||_F^2"
            fit = f"(1/2) {fit}"
        elif isinstance(self.loss, Regression):
            fit = f"(1/2) (1/{self.samples}) ||Z - Y||_F^2"
        elif isinstance(self.loss, CrossEntropy):
            fit = "sum_i CE(z_i, y_i)"
            if self.loss.reduction == "mean":
                fit = f"(1/{self.samples}) {fit}"
            if self.loss.smoothing:
                s = self.loss.smoothing
                fit = fit.replace("y_i", f"{1 - s:g} y_i + {s:g}/{self.classes}")
        else:
            fit = f"{getattr(self.loss.residual, '__name__', 'residual')}(Z)"
        terms = [
            f"({lam:g}/2) ||{name}||{'_2' if len(self.shapes[name]) == 1 else '_F'}^2"
            for name, lam in coupled.items()
            if lam
        ]
        text = f"F = {' + '.join([fit, *terms])},  Z = {chain}"
        shrink = [f"{name} <- (1 - {lam:g} lr) {name}" for name, lam in decoupled.items() if lam]
        return text + (f";  decoupled: {', '.join(shrink)}" if shrink else "")


def _held(where: str, value: Any) -> Any:
    """An initialiser as it is, an array as `Given`, so that the problem compares and hashes by content."""
    if value is None or is_initialiser(value):
        return value
    try:
        return Given(Content(where, value))
    except InvalidProblemError:
        raise invalid(where, value, "an array, Given(array) or SimplexETF()") from None


def _held_by_name(where: str, fixed: Any) -> tuple[tuple[str, Any], ...] | None:
    try:
        pairs = [
            (str(block), value) for block, value in (fixed.items() if isinstance(fixed, Mapping) else fixed)
        ]
    except (TypeError, ValueError):
        raise invalid(where, fixed, "initialisers by block name, such as {'W1': Given(array)}") from None
    return (
        tuple(
            (block, _held(f"{where}[{block!r}]", value)) for block, value in sorted(pairs, key=itemgetter(0))
        )
        or None
    )


@dataclass(frozen=True)
class UFM(Problem):
    """Unconstrained features model: logits Z = W H (+ b 1^T) with free features H.

    Parameters
    ----------
    classes : int
        Number K of classes >= 2.
    width : int
        Feature dimension d (the p of Zhao et al.).
    per_class : int or sequence of int
        Samples per class, one size or one for each class.
    loss : {"ce", "mse"}, loss object or function
        See `CrossEntropy`, `MSE`, `UserLoss`.
    bias : bool
        Whether the logits have a bias b.
    features, classifier : initialiser, or array_like of the block's shape, optional
        Freeze H, or W, at this value.
    frozen : mapping of str to initialiser, optional
        Freeze any blocks by name.
    normalisation : BatchNorm, optional
        Normalise H before W, with a trained scale, the block ``gamma``.

    Raises
    ------
    InvalidProblemError, IncompatibleError
        For sizes, targets or frozen blocks that are not allowed.

    Examples
    --------
    >>> problem = UFM(classes=3, width=4, per_class=(2, 1, 1))
    >>> problem.trained, problem.labels.tolist()
    (('H', 'W1'), [0, 0, 1, 2])
    """

    classes: int
    width: int
    per_class: int | Sequence[int] = 1
    loss: Any = "ce"
    bias: bool = False
    features: Any = None
    classifier: Any = None
    frozen: Any = None
    normalisation: BatchNorm | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "width", whole("UFM.width", self.width))
        self._check(1)

    @property
    def activation(self) -> str:  # type: ignore[override]
        """No activation acts in a model of one layer."""
        return "identity"

    @property
    def depth(self) -> int:  # type: ignore[override]
        """One layer."""
        return 1

    @property
    def widths(self) -> tuple[int, ...]:  # type: ignore[override]
        """Rows of H."""
        return (self.width,)


@dataclass(frozen=True)
class DUFM(Problem):
    """Deep unconstrained features model: L layers on top of free features, ReLU or linear between them.

    Parameters
    ----------
    classes : int
        Number K of classes >= 2.
    width : int or sequence of int
        Rows of H_1 ... H_L, one width or one for each.
    depth : int
        Number L of weight matrices.
    per_class : int or sequence of int
        Samples per class, one size or one for each class.
    activation : {"relu", "identity"}
        s in H_{l+1} = W_l s(H_l) for l >= 2; never on H_1 or on the logits.
    loss, bias, features, classifier, frozen
        As for `UFM`.
    normalisation : BatchNorm, optional
        Normalise H_1, or the pre-activations of several layers.

    Raises
    ------
    InvalidProblemError, IncompatibleError
        For sizes, targets or frozen blocks that are not allowed.

    Examples
    --------
    >>> DUFM(classes=10, width=30, depth=3).blocks
    ('H', 'W1', 'W2', 'W3')
    """

    classes: int
    width: int | Sequence[int]
    depth: int
    per_class: int | Sequence[int] = 1
    activation: str = "relu"
    loss: Any = "mse"
    bias: bool = False
    features: Any = None
    classifier: Any = None
    frozen: Any = None
    normalisation: BatchNorm | None = None

    def __post_init__(self) -> None:
        depth = whole("DUFM.depth", self.depth, most=_LARGEST_DEPTH)
        object.__setattr__(self, "depth", depth)
        object.__setattr__(self, "width", one_or_several("DUFM.width", self.width, depth, "width"))
        choice("DUFM.activation", self.activation, ("relu", "identity"))
        self._check(depth)

    @property
    def widths(self) -> tuple[int, ...]:  # type: ignore[override]
        """Rows of H_1 ... H_L."""
        return (self.width,) * self.depth if isinstance(self.width, int) else tuple(self.width)


@dataclass(frozen=True)
class RegressionUFM(Problem):
    """Unconstrained features model of a regression: outputs Z = W H (+ b 1^T) and squared error to real targets Y.

    The objective is sum ||Z - Y||_F^2/(2M) with lam/2 ||B||_F^2 for each block that decays. Andriopoulos et al.
    (arXiv 2409.04180) write l_H/(2M) ||H||_F^2 + l_W/2 ||W||_F^2: lam_H = l_H/M and lam_W = l_W. There are neither
    classes nor labels; what needs them refuses in one sentence. ``classes`` is the number of outputs.

    Parameters
    ----------
    targets : array_like, shape (outputs, samples)
        Finite real numbers, at least one output and one sample; ``problem.targets.array`` is the array.
    width : int
        Feature dimension d.
    bias : bool
        Whether the outputs have a bias b.
    features, classifier, frozen
        As for `UFM`.

    Raises
    ------
    InvalidProblemError, IncompatibleError
        For targets, sizes or frozen blocks that are not allowed.

    Examples
    --------
    >>> problem = RegressionUFM([[1.0, -1.0, 0.5], [0.0, 2.0, 1.0]], width=4, bias=True)
    >>> problem.formula()
    'F = (1/2) (1/3) ||Z - Y||_F^2,  Z = W1 H + b 1^T'
    >>> problem.shapes["W1"], problem.value({"H": np.zeros((4, 3)), "W": np.zeros((2, 4)), "b": [0.0, 1.0]})
    ((2, 4), 0.7083333333333333)
    """

    targets: Any = dataclasses.field()  # an attribute of the same name stands in `Problem`, and is no default
    width: int
    bias: bool = False
    features: Any = None
    classifier: Any = None
    frozen: Any = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "width", whole("RegressionUFM.width", self.width))
        given = self.targets
        content = given if isinstance(given, Content) else Content("RegressionUFM.targets", given)
        if content.array.ndim != 2 or 0 in content.shape:
            allowed = "a matrix of outputs x samples, both at least 1"
            raise invalid("RegressionUFM.targets", f"an array of shape {content.shape}", allowed)
        object.__setattr__(self, "targets", content)
        self._check_memory()
        self._check_blocks()

    @property
    def activation(self) -> str:  # type: ignore[override]
        """No activation acts in a model of one layer."""
        return "identity"

    @property
    def depth(self) -> int:  # type: ignore[override]
        """One layer."""
        return 1

    @property
    def widths(self) -> tuple[int, ...]:  # type: ignore[override]
        """Rows of H."""
        return (self.width,)

    @cached_property
    def loss(self) -> Regression:
        """Squared error to the targets."""
        return Regression(self.targets)

    @property
    def classes(self) -> int:  # type: ignore[override]
        """Number n of outputs, the rows of W and of the targets."""
        return int(self.targets.shape[0])

    @property
    def samples(self) -> int:
        """Number M of samples."""
        return int(self.targets.shape[1])

    @property
    def per_class(self) -> int:  # type: ignore[override]
        """All samples, which make one group."""
        return self.samples

    @property
    def class_sizes(self) -> tuple[int, ...]:
        """All samples, which make one group."""
        return (self.samples,)

    @property
    def labels(self) -> np.ndarray:
        """Refused: real targets have no classes.

        Raises
        ------
        IncompatibleError
            Always; there is no array of shape (samples,) to give.
        """
        raise IncompatibleError(
            "RegressionUFM.labels do not exist, for its targets are real numbers; allowed: a UFM or DUFM, which has "
            "classes."
        )
