"""NC1: how far features spread around their class means, compared with the distances of the means."""

from __future__ import annotations

from typing import Any

import numpy as np

from ufm.checks import choice, real
from ufm.errors import invalid
from ufm.metrics.classes import Classes
from ufm.metrics.inputs import over_records, read_features
from ufm.metrics.means import Geometry, geometry
from ufm.metrics.spectra import singular_values_and_vectors

FORMS = ("pinv", "quotient")


def nc1(
    H: Any,
    labels: Any = None,
    form: str = "pinv",
    *,
    cutoff: float | None = None,
    layer: int | None = None,
) -> Any:
    """Variability within classes, Sigma_W, against that between classes, Sigma_B.

    NC1 = tr(Sigma_W pinv(Sigma_B))/K, or tr(Sigma_W)/tr(Sigma_B) as ``quotient``, with

        Sigma_W = (1/N) sum_i (h_i - mu_y(i)) (h_i - mu_y(i))^T      every sample weighs the same,
        Sigma_B = (1/K) sum_k mubar_k mubar_k^T                      every class weighs the same.

    Parameters
    ----------
    H : Trajectory, or ndarray of shape (..., width, N)
        Features; for a trajectory the input of the last layer.
    labels : ndarray of int, shape (N,)
        Class of each sample.
    form : {"pinv", "quotient"}
        Which of the two. Only ``pinv`` sees how the spread is directed.
    cutoff : float, optional
        Singular values of Sigma_B that are at most this share of the largest count as 0 in the pseudoinverse; by
        default width * 2^-52, PyTorch's rule in double precision. At most K - 1 values are kept, which is all that
        Sigma_B can have. Where two classes merge, NC1 drops when their difference falls below the cut-off; with 0 it
        does not, and where nothing but round-off tells them apart it is of the size of one over its square, noise.
    layer : int, optional
        For a trajectory: the input of this layer, after the activation.

    Returns
    -------
    ndarray or float, shape (...)
        0 with one sample per class, where it says nothing; nan where all class means coincide.

    Raises
    ------
    InvalidProblemError
        For another form, a cutoff outside [0, 1) or with the quotient, or arrays that do not fit.

    Notes
    -----
    Zhao et al., arXiv 2602.16642v3 (``pinv``, read in full); their public code (read) has both forms. Its
    ``quotient`` divides by tr(Sigma_B) + 1e-8, here nothing is added. It works in single precision, where the same
    rule cuts off at width * 2^-23: near merged classes its curves may differ from the default here.

    Examples
    --------
    >>> H, labels = np.array([[-3.0, -1.0, 1.0, 3.0]]), np.array([0, 0, 1, 1])
    >>> [round(float(nc1(H, labels, form)), 12) for form in ("pinv", "quotient")]
    [0.125, 0.25]
    """
    choice("nc1.form", form, FORMS)
    if cutoff is not None:
        if form == "quotient":
            raise invalid("nc1.cutoff", cutoff, "None with form 'quotient', which inverts nothing")
        cutoff = real("nc1.cutoff", cutoff, 0.0, 1.0)
    features, classes = read_features("class_means", H, labels, layer)
    share = features.shape[-2] * 2.0**-52 if cutoff is None else cutoff

    def ratio(H: np.ndarray) -> np.ndarray:
        found = geometry(H, classes)
        return inverse_trace(found, share) if form == "pinv" else quotient_of_traces(found)

    return over_records(ratio, features)


def inverse_trace(found: Geometry, cutoff: float) -> np.ndarray:
    """tr(Sigma_W pinv(Sigma_B))/K from the singular vectors u_i and values s_i of M, without d x d matrices.

    Sigma_B = (1/K) sum_i s_i^2 u_i u_i^T, hence NC1 = (1/N) sum_i ||u_i^T D||^2/s_i^2 with D the deviations.
    """
    means, deviations = found
    u, s, kept = _kept_directions(means, cutoff)
    along = ((np.swapaxes(u, -1, -2) @ deviations / s[..., None]) ** 2).sum(axis=-1)
    total = np.where(kept, along, 0.0).sum(axis=-1) / deviations.shape[-1]
    return np.where(s[..., 0] > 0, total, np.nan)


def _kept_directions(means: np.ndarray, cutoff: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Singular vectors and values of M, and which of them the pseudoinverse of Sigma_B keeps."""
    u, s = singular_values_and_vectors(means)
    kept = s > np.sqrt(cutoff) * s[..., :1]
    kept[..., means.shape[-1] - 1 :] = False
    return u, s, kept


def squared_norm(found: Geometry, cutoff: float) -> np.ndarray:
    """||Sigma_W pinv(Sigma_B)||_F^2 = (K/N)^2 sum_i ||D D^T u_i||^2/s_i^4, as in `inverse_trace`."""
    means, deviations = found
    u, s, kept = _kept_directions(means, cutoff)
    along = deviations @ (np.swapaxes(deviations, -1, -2) @ (u / s[..., None, :] ** 2))
    total = np.where(kept, (along**2).sum(axis=-2), 0.0).sum(axis=-1)
    total = total * (means.shape[-1] / deviations.shape[-1]) ** 2
    return np.where(s[..., 0] > 0, total, np.nan)


def quotient_of_traces(found: Geometry) -> np.ndarray:
    """tr(Sigma_W)/tr(Sigma_B); nan where all class means coincide."""
    means, deviations = found
    within = (deviations**2).sum(axis=(-2, -1)) / deviations.shape[-1]
    between = (means**2).sum(axis=(-2, -1)) / means.shape[-1]
    return np.where(between > 0, within / between, np.nan)


def cdnv(H: Any, labels: Any = None, *, layer: int | None = None) -> Any:
    """Class-distance normalised variance, mean over pairs of classes.

    CDNV = mean_{k != k'} (Var_k + Var_k')/(2 ||mu_k - mu_k'||^2),  Var_k = (1/n_k) sum_{y(i) = k} ||h_i - mu_k||^2.

    Parameters
    ----------
    H : Trajectory, or ndarray of shape (..., width, N)
        Features; for a trajectory the input of the last layer.
    labels : ndarray of int, shape (N,)
        Class of each sample.
    layer : int, optional
        For a trajectory: the input of this layer, after the activation.

    Returns
    -------
    ndarray or float, shape (...)
        Every pair weighs the same, whatever its sizes. 0 with one sample per class. Where two means coincide inf,
        or nan if neither class has spread.

    Notes
    -----
    Galanti et al., arXiv 2112.15121 (recalled), as in the public code of Zhao et al. (read).

    Examples
    --------
    >>> float(cdnv(np.array([[-3.0, -1.0, 1.0, 3.0]]), np.array([0, 0, 1, 1])))
    0.0625
    """
    features, classes = read_features("class_means", H, labels, layer)
    return over_records(lambda H: mean_over_pairs(geometry(H, classes), classes), features)


def mean_over_pairs(found: Geometry, classes: Classes) -> np.ndarray:
    """Mean over pairs of classes of their variance over the squared distance of their means."""
    means, deviations = found
    variance = classes.means((deviations**2).sum(axis=-2))
    total = np.zeros(means.shape[:-2])
    for k in range(1, classes.count):  # one class against those before it: no K x K x width array
        squares = ((means[..., :k] - means[..., k : k + 1]) ** 2).sum(axis=-2)
        total += ((variance[..., :k] + variance[..., k : k + 1]) / (2 * squares)).sum(axis=-1)
    return total / np.float64(classes.count * (classes.count - 1) / 2)
