"""convention("tirer2022") -> Convention: a paper's decay constants and normalisations as ours, and back.

Here every objective is fit + sum over blocks of lam/2 ||block||_F^2, with the fit averaged over samples: mean
cross-entropy, or ||Z - Y||_F^2/(2N). A paper's objective is the same number with other constants in its decay terms,
which are mapped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ufm.checks import choice, real
from ufm.decay import Coupled, per_block
from ufm.errors import IncompatibleError, invalid
from ufm.problems import Problem

if TYPE_CHECKING:
    from ufm.decay import Decay


@dataclass(frozen=True)
class Convention:
    """How one paper writes its objective.

    Parameters
    ----------
    name : str
        First author and year.
    paper : str
        Where it stands.
    objective : str
        As the paper writes it, with its own lambdas.
    access : str
        How its text is known.
    loss : {"cross-entropy", "MSE"}
        Its fit.
    weights, features, bias : str or None
        Our rate over the paper's constant: "1", "2", "1/K" or "1/N"; None: the paper has no such term.

    Examples
    --------
    >>> import ufm
    >>> problem = ufm.UFM(classes=4, width=6, per_class=5, loss="mse")
    >>> tirer = convention("tirer2022")
    >>> tirer.decay(problem, W=0.5, H=0.25)
    Coupled(H=0.0125, W1=0.125)
    >>> tirer.parameters(problem, ufm.Coupled(W=0.125, H=0.0125))
    {'H': 0.25, 'W1': 0.5}
    """

    name: str
    paper: str
    objective: str
    access: str
    loss: str
    weights: str
    features: str
    bias: str | None

    def scale(self, problem: Problem, block: str) -> float:
        """Our rate of a block over the paper's constant.

        Raises
        ------
        InvalidProblemError
            For a bias that the paper does not penalise.
        """
        kind = self.bias if block == "b" else self.features if block == "H" else self.weights
        if kind is None:
            raise invalid(
                f"convention {self.name}: decay of {block}", kind, "none: the paper has no such term"
            )
        return {"1": 1.0, "2": 2.0, "1/K": 1.0 / problem.classes, "1/N": 1.0 / problem.samples}[kind]

    def decay(self, problem: Problem, **lambdas: float) -> Coupled:
        """The paper's constants as decay of this package.

        Parameters
        ----------
        problem : UFM or DUFM
            Says how many classes and samples there are, and which layer is the last.
        **lambdas : float
            The paper's constants >= 0 by block: ``W`` (the last layer), ``W1`` ..., ``H``, ``b``.

        Returns
        -------
        Coupled

        Raises
        ------
        InvalidProblemError, IncompatibleError
            For a problem with another loss than the paper's, a block without decay in the paper, and rates that
            `Coupled` refuses.
        """
        self._require_loss(problem)
        given = {problem.last if block == "W" else block: value for block, value in lambdas.items()}
        if len(given) < len(lambdas):
            raise IncompatibleError(f"convention {self.name}: W and {problem.last} are the same block.")
        rates = {
            block: self.scale(problem, block) * real(f"convention {self.name}: lambda of {block}", value, 0.0)
            for block, value in given.items()
        }
        decay = Coupled(**rates)
        per_block(decay, problem)  # refuses blocks that do not exist
        return decay

    def parameters(self, problem: Problem, decay: Decay | None) -> dict[str, float]:
        """The paper's constants of a decay of this package, by block; blocks that do not decay are left out.

        Parameters
        ----------
        problem : UFM or DUFM
        decay : Coupled
            Decoupled decay belongs to no objective and is refused.

        Returns
        -------
        dict of str to float
        """
        self._require_loss(problem)
        coupled, decoupled = per_block(decay, problem)
        if any(decoupled.values()):
            raise IncompatibleError(
                f"convention {self.name}: decay is {decay!r}; allowed: Coupled, the decay in the objective."
            )
        return {block: rate / self.scale(problem, block) for block, rate in coupled.items() if rate}

    def value(self, problem: Problem, state: Mapping[str, Any], **lambdas: float) -> float:
        """The paper's objective at a state, with its own constants; state and constants by block."""
        return problem.value(state, self.decay(problem, **lambdas))

    def _require_loss(self, problem: Problem) -> None:
        if not isinstance(problem, Problem):
            raise invalid(
                f"convention {self.name}: problem",
                problem,
                "a problem, then rates by block, such as W=5e-4, H=1e-5",
            )
        loss = problem.loss
        if loss.name != self.loss or getattr(loss, "reduction", "mean") != "mean":
            raise IncompatibleError(
                f"convention {self.name}: problem.loss is {loss!r}; allowed: {self.loss}, averaged over samples."
            )


_ALL = (
    Convention(
        "zhu2021",
        "Zhu et al., arXiv 2105.02375",
        "1/(K n) sum CE(W h + b, k) + lam_W/2 ||W||^2 + lam_H/2 ||H||^2 + lam_b/2 ||b||^2",
        "known from the code",
        "cross-entropy",
        weights="1",
        features="1",
        bias="1",
    ),
    Convention(
        "tirer2022",
        "Tirer, Bruna, arXiv 2202.08087",
        "1/(2 K n) ||W H - Y||^2 + lam_W/(2 K) ||W||^2 + lam_H/(2 K n) ||H||^2",
        "read as restated in arXiv 2210.16658; constants of more layers recalled",
        "MSE",
        weights="1/K",
        features="1/N",
        bias=None,
    ),
    Convention(
        "hong2023",
        "Hong, Ling, arXiv 2309.09725",
        "1/N sum CE(W h + b, k) + lam_W ||W||^2 + lam_H ||H||^2 + lam_b ||b||^2",
        "known from the code",
        "cross-entropy",
        weights="2",
        features="2",
        bias="2",
    ),
    Convention(
        "sukenik2024",
        "Sukenik, Lampert, Mondelli, arXiv 2405.14468",
        "1/(2 N) ||Z - Y||^2 + sum_l lam_l/2 ||W_l||^2 + lam_H/2 ||H||^2",
        "recalled; the same objective is read in the code of Dang et al., arXiv 2301.00437",
        "MSE",
        weights="1",
        features="1",
        bias=None,
    ),
    Convention(
        "andriopoulos2024",
        "Andriopoulos et al., arXiv 2409.04180",
        "1/(2 M) ||W H + b - Y||^2 + lam_H/(2 M) ||H||^2 + lam_W/2 ||W||^2, M samples",
        "read in full",
        "MSE",
        weights="1",
        features="1/N",
        bias=None,
    ),
)
CONVENTIONS = {one.name: one for one in _ALL}


def convention(name: str) -> Convention:
    """How a paper writes its objective, with maps of its constants to ours and back.

    Parameters
    ----------
    name : {"zhu2021", "tirer2022", "hong2023", "sukenik2024", "andriopoulos2024"}

    Returns
    -------
    Convention

    Raises
    ------
    InvalidProblemError
        For another name.

    Examples
    --------
    >>> import ufm
    >>> hong = convention("hong2023")
    >>> hong.decay(ufm.UFM(classes=4, width=6), W=0.01, H=0.02)
    Coupled(H=0.04, W1=0.02)
    """
    choice("convention.name", name, tuple(CONVENTIONS))
    return CONVENTIONS[name]


def table() -> str:
    """All conventions as a table in Markdown.

    Examples
    --------
    >>> table().splitlines()[0]
    '| convention | objective of the paper | our W | our H | our b | known |'
    """
    rows = [
        "| convention | objective of the paper | our W | our H | our b | known |",
        "|---|---|---|---|---|---|",
    ]
    for one in _ALL:
        ours = (_times(one.weights, "lam_W"), _times(one.features, "lam_H"), _times(one.bias, "lam_b"))
        objective = one.objective.replace("|", "\\|")
        rows.append(f"| `{one.name}` | {objective} | {' | '.join(ours)} | {one.paper}, {one.access} |")
    return "\n".join(rows)


def _times(kind: str | None, lam: str) -> str:
    return "none" if kind is None else {"1": lam, "2": f"2 {lam}", "1/K": f"{lam}/K", "1/N": f"{lam}/N"}[kind]
