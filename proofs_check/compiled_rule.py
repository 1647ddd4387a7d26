"""Update rules of the simulator, their own code, on symbols: what is proved is the rule that runs."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import sympy as sp


def _below(x: Any, y: Any) -> bool:
    answer = sp.sympify(x) < y
    if answer not in (sp.true, sp.false):
        raise ValueError(f"{x} < {y} is not decided")
    return bool(answer)


def _where(condition: bool, yes: Any, no: Any) -> Any:
    return yes if condition else no


def compiled_rule(name: str) -> Callable[..., Any]:
    """A scalar update rule of the simulator on symbols.

    A root of what is not 0 is a positive symbol while the rule runs, which decides the rule's comparison with 0;
    then it is what it stands for.

    Parameters
    ----------
    name : str
        For example ``"adam_step"``, of `ufm.kernels.updates`.
    """
    from ufm.kernels import updates

    rule = getattr(updates, name)
    code = getattr(rule, "py_func", rule).__code__

    def on_symbols(*arguments: Any) -> Any:
        roots: dict[Any, Any] = {}

        def root(x: Any) -> Any:
            symbol = sp.Dummy("root", positive=True)
            if sp.sympify(x).is_zero:
                return sp.Integer(0)
            roots[symbol] = sp.sqrt(x)
            return symbol

        names = {"square_root": root, "_sign": sp.sign, "below": _below, "where": _where}
        found = types.FunctionType(code, names)(*arguments)
        if isinstance(found, tuple):
            return tuple(sp.sympify(x).subs(roots) for x in found)
        return sp.sympify(found).subs(roots)

    return on_symbols
