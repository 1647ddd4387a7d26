"""What metrics there are: call, formula, convention, and what leaves each unchanged."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ufm.metrics import cosine, duality, layers, regression, row_sum, simplex, spectra, variability, zhu

TRANSFORMATIONS = {
    "rotation": "H -> Q H, W -> W Q^T with Q orthogonal",
    "class order": "the classes renumbered, with the rows of W and b",
    "scale of H": "H -> c H, c > 0",
    "scale of W": "W -> c W, c > 0",
    "shift of H": "h_i -> h_i + v for all samples",
    "shift of W": "w_k -> w_k + v for all classes",
}


@dataclass(frozen=True)
class Metric:
    """One metric with its options, as the table shows it.

    Parameters
    ----------
    function : callable
        Of this package.
    arguments : tuple of str
        What it takes, of W, H, labels, b, A, outputs, targets; a trajectory stands for all but A.
    options : tuple of (str, str or bool)
        Names and values of the options that this row is about.
    formula : str
        With the code's convention.
    convention : str
        Prefactors, weights, what the paper prints where it differs, where it comes from.
    unchanged_by : tuple of str
        Transformations that leave it as it is; of those that act on its arrays, all others change it in general.

    Examples
    --------
    >>> import numpy as np
    >>> metric = catalogue()[0]
    >>> metric.call, metric.formula, round(float(metric(np.eye(2))), 12)
    ("nc0(W, normalisation='alpha')", '||W^T 1||^2/K', 1.0)
    """

    function: Callable[..., Any]
    arguments: tuple[str, ...]
    options: tuple[tuple[str, str | bool], ...]
    formula: str
    convention: str
    unchanged_by: tuple[str, ...]

    @property
    def call(self) -> str:
        """How it is called, ``nc0(W, normalisation='norm')``."""
        options = (f"{name}={value!r}" for name, value in self.options)
        return f"{self.function.__name__}({', '.join([*self.arguments, *options])})"

    def __call__(self, *arrays: Any) -> Any:
        """Value for a trajectory, or for arrays in the order of `arguments`."""
        return self.function(*arrays, **dict(self.options))


_W, _H, _WH, _WHB, _A = ("W",), ("H", "labels"), ("W", "H", "labels"), ("W", "H", "labels", "b"), ("A",)
_ALWAYS = ("rotation", "class order")
_OF_H = (*_ALWAYS, "scale of H", "shift of H")
_OF_W = (*_ALWAYS, "scale of W")
_OF_BOTH = (*_ALWAYS, "scale of H", "scale of W", "shift of H")
_PRINT = "paper: times 1/{}"
_NO_STD = "ddof = 1, K - 1 under the square root; paper: ddof = 0, as it prints none"
_NO_ABS = "paper: without the absolute value"


def _nc0(normalisation: str, formula: str, convention: str, unchanged_by: tuple[str, ...]) -> Metric:
    return Metric(row_sum.nc0, _W, (("normalisation", normalisation),), formula, convention, unchanged_by)


def _cosine(function: Callable[..., Any], over: str, formula: str) -> Metric:
    convention = (
        "features not centred; pairs i = j count within a class; Pan and Cao, arXiv 2309.04644 (recalled)"
    )
    return Metric(function, _H, (("over", over),), formula, convention, (*_ALWAYS, "scale of H"))


def catalogue() -> tuple[Metric, ...]:
    """All metrics.

    Returns
    -------
    tuple of Metric

    Examples
    --------
    >>> [metric.call for metric in catalogue()][:2]
    ["nc0(W, normalisation='alpha')", "nc0(W, normalisation='norm')"]
    """
    return (
        _nc0("alpha", "||W^T 1||^2/K", "theorems 3.1 to 3.4 of Zhao et al.; the NC0 here", _ALWAYS),
        _nc0("norm", "||W^T 1||", "what their public code records and figure 5 shows", _ALWAYS),
        _nc0("norm_per_width", "||W^T 1||/p", "printed in their eq. 12; figure 5 shows the norm", _ALWAYS),
        _nc0("relative", "||W^T 1||/(p ||W||_F)", "their eq. 14", _OF_W),
        Metric(
            variability.nc1, _H, (("form", "pinv"),), "tr(Sigma_W pinv(Sigma_B))/K",
            "Sigma_W over samples, Sigma_B over classes; singular values of Sigma_B up to p 2^-52 of the largest "
            "count as 0",
            _OF_H,
        ),
        Metric(
            variability.nc1, _H, (("form", "quotient"),), "tr(Sigma_W)/tr(Sigma_B)",
            "as above; their code adds 1e-8 below, nothing is added here", _OF_H,
        ),
        Metric(
            variability.cdnv, _H, (), "mean_(k != k') (Var_k + Var_k')/(2 ||mu_k - mu_k'||^2)",
            "every pair weighs the same; Var_k over the samples of class k", _OF_H,
        ),
        _cosine(cosine.intra_class_cosine, "worst", "min_k mean_(i, j in k) cos(h_i, h_j)"),
        _cosine(cosine.intra_class_cosine, "mean", "mean_k mean_(i, j in k) cos(h_i, h_j)"),
        _cosine(cosine.inter_class_cosine, "worst", "max_(k != k') mean_(i in k, j in k') cos(h_i, h_j)"),
        _cosine(cosine.inter_class_cosine, "mean", "mean_(k != k') mean_(i in k, j in k') cos(h_i, h_j)"),
        Metric(simplex.nc2, _H, (), "||M^T M/||M^T M||_F - M*||_F", _PRINT.format("K^2"), _OF_H),
        Metric(simplex.nc2n, _H, (), "std_k ||mubar_k||/mean_k ||mubar_k||", _NO_STD, _OF_H),
        Metric(simplex.nc2a, _H, (), "mean_(k != k') |cos(mubar_k, mubar_k') + 1/(K - 1)|", _NO_ABS, _OF_H),
        Metric(
            simplex.nc2w, _W, (), "||W W^T/||W W^T||_F - M*||_F", f"{_PRINT.format('K^2')}; rows not centred", _OF_W
        ),
        Metric(simplex.nc2wn, _W, (), "std_k ||w_k||/mean_k ||w_k||", _NO_STD, _OF_W),
        Metric(simplex.nc2wa, _W, (), "mean_(k != k') |cos(w_k, w_k') + 1/(K - 1)|", _NO_ABS, _OF_W),
        Metric(duality.nc2m, _WH, (), "||W M/||W M||_F - M*||_F", _PRINT.format("K^2"), _OF_BOTH),
        Metric(duality.nc3, _WH, (), "||W/||W||_F - M^T/||M||_F||_F", _PRINT.format("(K p)"), _OF_BOTH),
        Metric(
            duality.nc4, _WH, (), "share of samples with argmax_k <w_k, h> = argmin_k ||h - mu_k||",
            "a trajectory's bias is used; ties go to the class of lowest number, and class order leaves it unchanged "
            "but for ties",
            (*_ALWAYS, "scale of H", "scale of W", "shift of W"),
        ),
        Metric(
            duality.nc4, _WHB, (), "the same with argmax_k <w_k, h> + b_k",
            "their code leaves the bias out; class order leaves it unchanged but for ties",
            (*_ALWAYS, "shift of W"),
        ),
        Metric(
            zhu.zhu_nc1, _H, (), "tr(Sigma_W pinv(Sigma_B))/K, means centred at the mean of all samples",
            "Zhu et al.; nc1 for equal class sizes", _OF_H,
        ),
        Metric(zhu.zhu_nc2, _W, (), "||W W^T/||W W^T||_F - M*||_F", "Zhu et al.; nc2w", _OF_W),
        Metric(
            zhu.zhu_nc3, _WH, (), "||W M/||W M||_F - M*||_F, means centred at the mean of all samples",
            "Zhu et al.; nc2m for equal class sizes", _OF_BOTH,
        ),
        Metric(zhu.zhu_nc4, _WHB, (), "||W mu_G + b||, mu_G the mean of all samples", "Zhu et al.", _ALWAYS),
        Metric(
            spectra.spectrum, _A, (), "singular values s_1 >= s_2 >= ...",
            "of weights, features or centred class means of a trajectory", _ALWAYS,
        ),
        Metric(
            spectra.rank, _A, (), "number of s_i > tolerance s_1",
            "tolerance max(rows, columns) 2^-52 unless given, as numpy's matrix_rank", _OF_W,
        ),
        Metric(
            spectra.effective_rank, _A, (), "exp(-sum_i p_i log p_i), p_i = s_i/sum_j s_j",
            "Roy and Vetterli; normalised by the sum, not by the sum of squares", _OF_W,
        ),
        Metric(spectra.stable_rank, _A, (), "||A||_F^2/||A||_2^2", "between 1 and the rank", _OF_W),
    )  # fmt: skip


def layered() -> tuple[Metric, ...]:
    """Metrics of all layers of a chain at once, for a trajectory, or for a problem with a state.

    Their rotations are those of any layer, the weights on both sides turned along, where that leaves H_l as it is but
    for the rotation: in linear chains, and of H_1.

    Returns
    -------
    tuple of Metric

    Examples
    --------
    >>> [metric.call for metric in layered()][-1]
    "layer_ranks(trajectory, stage='pre')"
    """
    of, frame = ("trajectory",), (*_ALWAYS, "scale of H")
    deep = "l = 1 ... L; H_l with stage='pre', s(H_l) with stage='post'"
    return (
        Metric(layers.dnc1, of, (("form", "pinv"),), "tr(Sigma_W pinv(Sigma_B))/K of every layer", deep, _OF_H),
        Metric(layers.dnc1, of, (("form", "quotient"),), "tr(Sigma_W)/tr(Sigma_B) of every layer", deep, _OF_H),
        Metric(
            layers.dnc1, of, (("form", "frobenius"),), "||Sigma_W pinv(Sigma_B)||_F^2 of every layer",
            f"{deep}; a public reproduction of arXiv 2404.06106 (recalled)", _OF_H,
        ),
        Metric(layers.dnc1, of, (("form", "cdnv"),), "cdnv of every layer", deep, _OF_H),
        Metric(
            layers.dnc2, of, (), "||G/||G||_F - I/sqrt(K)||_F, G = M_l^T M_l, M_l not centred",
            f"orthogonal frame, of MSE with ReLU; {deep}", frame,
        ),
        Metric(
            layers.dnc3, of, (), "sqrt(sum_i ||w_i||^2 min_k (1 - cos(w_i, mu_k)^2))/||W_l||_F",
            "w_i the rows of W_l, mu_k the class means of s(H_l); rows 0 count nothing, either sign is collinear",
            (*_ALWAYS, "scale of H", "scale of W"),
        ),
        Metric(layers.layer_means, of, (), "M_l, the class means, not centred", deep, ()),
        Metric(layers.layer_grams, of, (), "M_l^T M_l", deep, ("rotation",)),
        Metric(layers.layer_spectra, of, (), "singular values of M_l", deep, _ALWAYS),
        Metric(
            layers.layer_ranks, of, (("stage", "pre"),), "number of singular values of M_l above 1e-2 of the largest",
            f"tolerance=1e-2 unless given; {deep}", frame,
        ),
    )  # fmt: skip


def regressive() -> tuple[Metric, ...]:
    """Metrics of a regression, for a trajectory of a `RegressionUFM` or for arrays.

    Returns
    -------
    tuple of Metric

    Examples
    --------
    >>> [metric.call for metric in regressive()][-1]
    'nrc3_gamma(W, targets, normalised=False)'
    """
    of_H, of_both = ("rotation", "scale of H"), ("rotation", "scale of H", "scale of W")
    H, W = ("H", "outputs"), ("W", "targets")
    source = "Andriopoulos et al., arXiv 2409.04180"
    return (
        Metric(
            regression.nrc1, H, (("centred", False),), "mean_i ||u_i - P u_i||^2, u = h/||h||",
            f"P onto the first n principal components of H, n outputs; {source}", of_H,
        ),
        Metric(
            regression.nrc1, H, (("centred", True),), "the same with u = (h - mean)/||h - mean||",
            "later work", (*of_H, "shift of H"),
        ),
        Metric(
            regression.nrc2, ("W", "H"), (), "mean_i ||u_i - P u_i||^2, u = h/||h||",
            f"P onto the span of the rows of W; centred=True as for nrc1; {source}", of_both,
        ),
        Metric(
            regression.nrc3, W, (), "||W W^T/||W W^T||_F - A/||A||_F||_F^2, A = Sigma^(1/2) - sqrt(gamma) I",
            f"Sigma the covariance of the targets; gamma fitted at the last record unless given; {source}",
            ("rotation", "scale of W"),
        ),
        Metric(
            regression.nrc3_gamma, W, (("normalised", True),), "argmin_gamma of nrc3, at the last record",
            "in closed form, derived here", ("rotation", "scale of W"),
        ),
        Metric(
            regression.nrc3_gamma, W, (("normalised", False),), "((tr Sigma^(1/2) - tr W W^T)/n)^2",
            f"c at an optimum only if l_W = l_H; {source}", ("rotation",),
        ),
    )  # fmt: skip


def table(width: int = 110) -> str:
    """All metrics with formula, convention and invariances, as text of this width.

    Parameters
    ----------
    width : int
        Of the text, in characters.

    Returns
    -------
    str

    Examples
    --------
    >>> "tr(Sigma_W pinv(Sigma_B))/K" in table()
    True
    """
    lines = textwrap.wrap(
        "K classes, p rows of H, N samples; mu_k class means, mubar_k = mu_k - mean_k mu_k, M = [mubar_1 ... mubar_K], "
        "M* = (I - J/K)/sqrt(K - 1). Formulas are those of convention='code', the default; 'paper' is what is printed.",
        width,
    )
    for metric in (*catalogue(), *layered(), *regressive()):
        lines.append(metric.call)
        for text in (metric.formula, metric.convention, f"unchanged by {', '.join(metric.unchanged_by)}"):
            lines += textwrap.wrap(text, width, initial_indent="    ", subsequent_indent="      ")
    for name, meaning in TRANSFORMATIONS.items():
        lines += textwrap.wrap(f"{name}: {meaning}", width, subsequent_indent="      ")
    return "\n".join(lines)
