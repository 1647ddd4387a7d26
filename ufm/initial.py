"""Where a trajectory starts, block by block.

An initialiser draws one block from its `Place` and a random generator of its own, so that a block's start
depends on the seed and its name alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ufm.arrays import Content
from ufm.checks import choice, finite_array, fits, real, whole
from ufm.errors import IncompatibleError, invalid
from ufm.losses import Regression

if TYPE_CHECKING:
    from ufm.problems import Problem


@dataclass(frozen=True)
class Place:
    """What an initialiser may know of the block it fills."""

    name: str
    shape: tuple[int, ...]
    classes: int
    labels: np.ndarray


class Initialiser(Protocol):
    """Anything with `draw(place, rng)`, which returns an array of `place.shape`."""

    def draw(self, place: Place, rng: np.random.Generator) -> np.ndarray:
        """Return the start of one block."""
        ...


def is_initialiser(value: Any) -> bool:
    """Whether a value can draw a block; a class that was not called cannot."""
    return hasattr(value, "draw") and not isinstance(value, type)


@dataclass(frozen=True)
class Zeros:
    """All entries 0.

    Examples
    --------
    >>> import ufm
    >>> ufm.simulate(ufm.UFM(2, 2), ufm.GD(0.1), init=Zeros(), steps=0)["W"].tolist()
    [[[0.0, 0.0], [0.0, 0.0]]]
    """

    def draw(self, place: Place, rng: np.random.Generator) -> np.ndarray:
        """Return zeros."""
        return np.zeros(place.shape)


@dataclass(frozen=True)
class Gaussian:
    """Independent normal entries with mean 0 and standard deviation `scale`.

    Parameters
    ----------
    scale : float
        >= 0.

    Raises
    ------
    InvalidProblemError
        For a negative scale.

    Examples
    --------
    >>> Gaussian(0.1)
    Gaussian(scale=0.1)
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", real("Gaussian.scale", self.scale, 0.0))

    def draw(self, place: Place, rng: np.random.Generator) -> np.ndarray:
        """Return scale times standard normal numbers."""
        return self.scale * rng.standard_normal(place.shape)


@dataclass(frozen=True)
class LinearDefault:
    """PyTorch's default for a linear layer: uniform in +-1/sqrt(fan in), for weights and bias.

    The expected ||W^T 1||_2 of a K-class head is about sqrt(K/3) at any width.

    Examples
    --------
    >>> import ufm
    >>> run = ufm.simulate(ufm.UFM(3, 4), ufm.GD(0.1), init=ufm.Start(W=LinearDefault(), H=ufm.Zeros()), steps=0)
    >>> bool(abs(run["W"]).max() < 0.5)
    True
    """

    def draw(self, place: Place, rng: np.random.Generator) -> np.ndarray:
        """Return uniform numbers; the fan in of the bias is not known here, so it must be given apart."""
        if not place.name.startswith("W"):
            raise IncompatibleError(
                f"init.{place.name} is LinearDefault(); allowed: weights W1, W2, ... "
                f"(for example Start(W=LinearDefault(), H=Gaussian(0.1)))."
            )
        half = place.shape[1] ** -0.5
        return rng.uniform(-half, half, place.shape)


def simplex_etf(K: int, norm: str = "frobenius") -> np.ndarray:
    """Simplex equiangular tight frame of K vectors in R^K, from the projection Pi = I - J/K.

    Parameters
    ----------
    K : int
        Number of classes >= 2.
    norm : {"frobenius", "columns"}
        Pi/sqrt(K-1), of unit Frobenius norm (M* of theorems 3.3 and 3.4 of Zhao et al., arXiv 2602.16642v3),
        or sqrt(K/(K-1)) Pi, with unit columns.

    Returns
    -------
    ndarray, shape (K, K)

    Raises
    ------
    InvalidProblemError
        For K < 2 or an unknown norm.

    Examples
    --------
    >>> simplex_etf(2, norm="columns").round(4).tolist()
    [[0.7071, -0.7071], [-0.7071, 0.7071]]
    """
    K = whole("simplex_etf.K", K, 2)
    choice("simplex_etf.norm", norm, ("frobenius", "columns"))
    fits("simplex_etf.K", "the frame", K * K, "fewer classes")
    scale = (1.0 if norm == "frobenius" else np.sqrt(K)) / np.sqrt(K - 1.0)
    frame: np.ndarray = scale * (np.eye(K) - 1.0 / K)
    return frame


@dataclass(frozen=True)
class SimplexETF:
    """Class means (for H) or rows (for W) at a simplex equiangular tight frame.

    A width above K is filled with zeros, a width of K - 1 holds the frame in a Helmert basis.

    Parameters
    ----------
    norm : {"frobenius", "columns"}
        Scale as in `simplex_etf`.

    Raises
    ------
    InvalidProblemError
        For another norm.

    Examples
    --------
    >>> import ufm
    >>> problem = ufm.UFM(classes=3, width=3, features=SimplexETF())
    >>> problem.frozen_values["H"].round(3)[0].tolist()
    [0.471, -0.236, -0.236]
    """

    norm: str = "frobenius"

    def __post_init__(self) -> None:
        choice("SimplexETF.norm", self.norm, ("frobenius", "columns"))

    def draw(self, place: Place, rng: np.random.Generator) -> np.ndarray:
        """Return the frame; every sample of a class sits at its vector."""
        K = place.classes
        if len(place.shape) == 1 or (place.name != "H" and place.shape[0] != K):
            raise IncompatibleError(f"init.{place.name} is {self!r}; allowed: H and the last layer.")
        width = place.shape[0] if place.name == "H" else place.shape[1]
        if width < K - 1:
            raise invalid("width", width, f"at least classes - 1 = {K - 1} for a simplex ETF")
        frame = simplex_etf(K, self.norm)
        if width == K - 1:
            from scipy.linalg import helmert

            frame = helmert(K) @ frame
        columns = np.zeros((width, K))
        columns[: frame.shape[0]] = frame
        return columns[:, place.labels] if place.name == "H" else np.ascontiguousarray(columns.T)


def walsh(K: int) -> np.ndarray:
    """Characters of the group (Z_2)^m, K = 2^m: chi_k(g) = (-1)^(number of common bits of k and g), row k.

    Symmetric, entries +-1, and its square is K I: walsh(K)/sqrt(K) is the Walsh basis.

    Parameters
    ----------
    K : int
        Number of classes, a power of 2 from 2 on.

    Returns
    -------
    ndarray of int, shape (K, K)

    Raises
    ------
    InvalidProblemError
        For a K that is no such power.

    Examples
    --------
    >>> walsh(4)[3].tolist()
    [1, -1, -1, 1]
    """
    K = whole("walsh.K", K, 2)
    if K & (K - 1):
        raise invalid("walsh.K", K, "a power of 2 from 2 on")
    fits("walsh.K", "the matrix", K * K, "a smaller K")
    from scipy.linalg import hadamard

    characters: np.ndarray = hadamard(K)
    return characters


@dataclass(frozen=True)
class Spectral:
    """Every block diagonal in the Walsh basis V of K = 2^m classes: V diag(s) V^T in its corner, 0 elsewhere.

    The logits of a linear chain that starts so are V diag(z) V^T, each column once for every sample of its class over
    sqrt(n), and z_k is the product of the blocks' s_k: their singular values. Factors are aligned, and balanced if
    all blocks have the same s; `Start(W=Spectral(...), H=Spectral(...))` gives them different ones.

    Parameters
    ----------
    singular_values : float or sequence of float
        s >= 0, one for all or one for each character in the order of `walsh`; the first belongs to the constant
        vector.

    Raises
    ------
    InvalidProblemError
        For a negative or non-finite value; on drawing, for K that is no power of 2, another number of values than K
        or a width below K.

    Examples
    --------
    >>> Spectral((1, 0.5))
    Spectral(singular_values=(1.0, 0.5))
    """

    singular_values: float | Sequence[float]

    def __post_init__(self) -> None:
        where, given = "Spectral.singular_values", self.singular_values
        several = isinstance(given, Sequence | np.ndarray) and not isinstance(given, str | bytes)
        if several and getattr(given, "ndim", 1) != 0:
            held: Any = tuple(real(where, value, 0.0) for value in given)  # type: ignore[union-attr]
        else:
            held = real(where, given, 0.0)
        object.__setattr__(self, "singular_values", held)

    def values(self, classes: int) -> np.ndarray:
        """One singular value for each character, shape (classes,)."""
        s = np.atleast_1d(np.asarray(self.singular_values, dtype=float))
        if s.size not in (1, classes):
            allowed = f"one number, or one for each of {classes} classes"
            raise invalid("Spectral.singular_values", self.singular_values, allowed)
        return np.array(np.broadcast_to(s, classes))

    def draw(self, place: Place, rng: np.random.Generator) -> np.ndarray:
        """Return the block; the columns of H stand once for each sample of a class, over sqrt(n)."""
        K = place.classes
        if len(place.shape) == 1:
            raise IncompatibleError(f"init.{place.name} is {self!r}; allowed: weights and H.")
        width = min(place.shape) if place.name != "H" else place.shape[0]
        if width < K:
            raise invalid("width", width, f"at least the number of classes, {K}, for a spectral start")
        V = walsh(K)
        corner = V * self.values(K) @ V / K
        block = np.zeros(place.shape)
        if place.name == "H":
            block[:K] = corner[:, place.labels] / np.sqrt(np.bincount(place.labels))[place.labels]
        else:
            block[:K, :K] = corner
        return block


class Given:
    """The arrays given: one for a single block, or several by block name for a whole start.

    Parameters
    ----------
    values : array_like of the block's shape, optional
        The block's values.
    **blocks : array_like of their blocks' shapes
        or values by block name (``W`` is the last layer).

    Raises
    ------
    InvalidProblemError
        For arrays that are not finite real numbers, or both or neither form.

    Examples
    --------
    >>> Given([[1.0, 2.0]])
    Given([[1.0, 2.0]])
    """

    __slots__ = ("blocks", "values")

    values: Content | None
    blocks: tuple[tuple[str, Content], ...]

    def __init__(self, /, values: Any = None, **blocks: Any) -> None:
        if (values is None) == (not blocks):
            raise invalid("Given", blocks or None, "one array, or arrays by block name, not both")
        one = None if values is None else values if isinstance(values, Content) else Content("Given", values)
        several = tuple(
            (name, array if isinstance(array, Content) else Content(f"Given.{name}", array))
            for name, array in sorted(blocks.items())
        )
        object.__setattr__(self, "values", one)
        object.__setattr__(self, "blocks", several)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError("Given cannot be changed; build a new one")

    def __reduce__(self) -> tuple[Any, ...]:
        return _given, (self.values, self.blocks)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Given) and (self.values, self.blocks) == (other.values, other.blocks)

    def __hash__(self) -> int:
        return hash((self.values, self.blocks))

    def __repr__(self) -> str:
        if self.values is not None:
            return f"Given({self.values!r})"
        return f"Given({', '.join(f'{name}={array!r}' for name, array in self.blocks)})"

    def draw(self, place: Place, rng: np.random.Generator) -> np.ndarray:
        """Return the array, if its shape is that of the block."""
        if self.values is None:
            raise IncompatibleError(f"init.{place.name} is {self!r}; allowed: an initialiser of one block.")
        if self.values.shape != place.shape:
            raise invalid(
                f"Given for block {place.name}",
                f"an array of shape {self.values.shape}",
                f"shape {place.shape}",
            )
        return np.array(self.values.array)


def _given(values: Content | None, blocks: tuple[tuple[str, Content], ...]) -> Given:
    return Given(values) if values is not None else Given(**dict(blocks))


class Start:
    """An initialiser for each trained block, and one for the others.

    Parameters
    ----------
    default : initialiser, optional
        For the blocks that are not named.
    **blocks : initialiser
        By block name (``W`` is the last layer). A bias that nothing names starts at 0, the scale
        of a normalised layer at 1.

    Raises
    ------
    InvalidProblemError
        For what is no initialiser.

    Examples
    --------
    >>> Start(W=Zeros(), H=Gaussian(0.1))
    Start(H=Gaussian(scale=0.1), W=Zeros())
    """

    __slots__ = ("blocks", "default")

    default: Initialiser | None
    blocks: tuple[tuple[str, Initialiser], ...]

    def __init__(self, /, default: Initialiser | None = None, **blocks: Initialiser) -> None:
        for name, initialiser in {"default": default, **blocks}.items():
            if initialiser is not None and not is_initialiser(initialiser):
                raise invalid(f"Start.{name}", initialiser, "an initialiser such as Gaussian(0.1) or Zeros()")
        object.__setattr__(self, "default", default)
        object.__setattr__(self, "blocks", tuple(sorted(blocks.items())))

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError("Start cannot be changed; build a new one")

    def __reduce__(self) -> tuple[Any, ...]:
        return _start, (self.default, self.blocks)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Start) and (self.default, self.blocks) == (other.default, other.blocks)

    def __hash__(self) -> int:
        return hash((self.default, self.blocks))

    def __repr__(self) -> str:
        parts = [] if self.default is None else [repr(self.default)]
        return f"Start({', '.join(parts + [f'{name}={value!r}' for name, value in self.blocks])})"


def _start(default: Initialiser | None, blocks: tuple[tuple[str, Initialiser], ...]) -> Start:
    return Start(default, **dict(blocks))


def block_rng(seed: int, purpose: int, index: int) -> np.random.Generator:
    """Random generator of one purpose and index, independent of every other."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(purpose, index))))


def _labels_for(problem: Problem, name: str, initialiser: Initialiser) -> np.ndarray:
    """Class of each sample; none in a regression, where a start that reads them is refused."""
    if not isinstance(problem.loss, Regression):
        return problem.labels
    if isinstance(initialiser, SimplexETF | Spectral):
        raise IncompatibleError(
            f"init.{name} is {initialiser!r}, a start of classes; allowed for real targets: others, such as "
            "Gaussian(0.1)."
        )
    return np.zeros(0, np.int64)


def draw_block(problem: Problem, name: str, initialiser: Initialiser, seed: int) -> np.ndarray:
    """Start of one block, shape `problem.shapes[name]`."""
    size = prod(problem.shapes[name])
    fits(f"init.{name}", "its start", size + problem.samples, "a smaller width, per_class or classes")
    place = Place(name, problem.shapes[name], problem.classes, _labels_for(problem, name, initialiser))
    with np.errstate(over="ignore"):
        drawn = initialiser.draw(place, block_rng(seed, 0, problem.blocks.index(name)))
    values = finite_array(f"init.{name}", drawn)
    if values.shape != place.shape:
        raise invalid(f"init.{name}", f"an array of shape {values.shape}", f"shape {place.shape}")
    return values


def draw(problem: Problem, init: Any, seed: int) -> dict[str, np.ndarray]:
    """Start of every trained block by name.

    Raises
    ------
    IncompatibleError
        For a block that is named but not trained, or trained but not named.
    """
    if isinstance(init, Given) and init.blocks:
        init = Start(**{name: Given(values) for name, values in init.blocks})
    if not isinstance(init, Start):
        if not is_initialiser(init):
            raise invalid("init", init, "an initialiser such as Gaussian(0.1), or Start(W=..., H=...)")
        init = Start(init)
    chosen: dict[str, Initialiser] = {}
    for block, initialiser in init.blocks:
        name = problem.last if block == "W" else block
        if name not in problem.trained:
            raise IncompatibleError(
                f"init.{block} is {initialiser!r}; allowed: trained blocks, {', '.join(problem.trained)}."
            )
        if name in chosen:
            raise IncompatibleError(
                f"init.{block} is {initialiser!r}, but block {name} has a start already; allowed: one."
            )
        chosen[name] = initialiser
    for name in problem.trained:
        if name in chosen:
            continue
        if init.default is not None:
            chosen[name] = init.default
        elif name == "b":
            chosen[name] = Zeros()
        elif name in problem.scales.values():
            chosen[name] = Given(np.ones(problem.shapes[name]))
        else:
            raise IncompatibleError(
                f"init.{name} is missing; allowed: an initialiser for every trained block."
            )
    return {name: draw_block(problem, name, chosen[name], seed) for name in problem.trained}
