"""Numbers of a recorded state: the neural-collapse metrics, spectra and ranks, in batched numpy.

Every metric takes a trajectory (one value per record) or plain arrays with any leading batch axes: W of shape
(..., K, p), H of shape (..., p, N), labels of shape (N,). ``layer=l`` takes the weights W_l and their input s(H_l)
of a trajectory; by default the last layer's. Features of a normalised problem are those behind the normalisation,
scaled by gamma, and not the block H. Metrics of all layers at once (`dnc1`, `dnc2`, `dnc3`, `layer_ranks`,
`layer_spectra`, `layer_grams`, `layer_means`) also take a problem with one state; `classify_solution` says which
solution a state is. `table` lists all of them with formula, convention and invariances.

`nrc1`, `nrc2` and `nrc3` are those of a `RegressionUFM`, whose outputs are no classes: metrics of classes refuse it.

Notation of Zhao et al., arXiv 2602.16642v3, section 2 and appendix B: mu_k are the class means, mubar_k the class
means minus their mean over classes, M = [mubar_1 ... mubar_K], and M* = (I - 1 1^T/K)/sqrt(K - 1) is the Gram matrix
of a simplex ETF at unit norm.

Conventions. The paper's appendix prints prefactors 1/K^2 (NC2, NC2W, NC2M) and 1/(K p) (NC3) that its public code,
and so its figures and tables, do not have; the code takes the standard deviation in NC2n and NC2Wn with K - 1, and
the absolute value in NC2a and NC2Wa. ``convention="code"`` (the default) is what is plotted, ``convention="paper"``
what is printed. The evidence for the code's side are its values at three random states (tests/data), equal to ours
once its guards against division by zero, 1e-8 and 1e-9, are put in.

Classes of unequal sizes. Class means, the pairs of `cdnv` and Sigma_B weigh every class the same, Sigma_W and `nc4`
every sample. The values above are at equal sizes and say nothing of this; that the code does the same is read from its
text (accumulate.py and measure.py of jydzhao/neural_collapse_optimizer at commit 78c4254). The metrics of Zhu et al.
centre at the mean of all samples.

Degenerate states. Where a metric divides by what is 0 (all class means coincide, W = 0) or the run diverged it is
nan, or what its docstring says, and no warning is given. Features that all coincide are means that coincide; means of
spread features that coincide up to round-off only give the value of that round-off. Ratios are right at any scale of
W and H at which the entries are normal numbers.
"""

from __future__ import annotations

from ufm.metrics.catalogue import Metric, catalogue, layered, regressive, table
from ufm.metrics.classification import Classification, Distance, classify_solution
from ufm.metrics.cosine import inter_class_cosine, intra_class_cosine
from ufm.metrics.duality import nc2m, nc3, nc4
from ufm.metrics.layers import dnc1, dnc2, dnc3, layer_grams, layer_means, layer_ranks, layer_spectra
from ufm.metrics.means import class_means
from ufm.metrics.regression import nrc1, nrc2, nrc3, nrc3_gamma
from ufm.metrics.row_sum import NORMALISATIONS, nc0
from ufm.metrics.simplex import CONVENTIONS, nc2, nc2a, nc2n, nc2w, nc2wa, nc2wn
from ufm.metrics.spectra import effective_rank, rank, spectrum, stable_rank
from ufm.metrics.variability import FORMS, cdnv, nc1
from ufm.metrics.zhu import zhu_nc1, zhu_nc2, zhu_nc3, zhu_nc4

__all__ = [
    "CONVENTIONS", "FORMS", "NORMALISATIONS", "Classification", "Distance", "Metric", "catalogue", "cdnv",
    "class_means", "classify_solution", "dnc1", "dnc2", "dnc3", "effective_rank", "inter_class_cosine",
    "intra_class_cosine", "layer_grams", "layer_means",
    "layer_ranks", "layer_spectra", "layered", "nc0", "nc1", "nc2", "nc2a", "nc2m", "nc2n", "nc2w", "nc2wa", "nc2wn",
    "nc3", "nc4", "nrc1", "nrc2", "nrc3", "nrc3_gamma", "rank", "regressive",
    "spectrum", "stable_rank", "table", "zhu_nc1", "zhu_nc2", "zhu_nc3", "zhu_nc4",
]  # fmt: skip
