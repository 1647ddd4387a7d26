"""All the small errors that can be made in the functions of a module, one at a time.

Mutated are operators, comparisons, ``and``/``or``/``not``, unary minus, numbers, truth values, bounds of slices and
pairs of functions such as min and max, in bodies and defaults of functions and methods. Left alone are docstrings and
other texts, annotations, decorators (they only cache), everything inside ``raise`` (messages), and what stands outside
functions: claims and tables of published numbers.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

OPERATORS: dict[type, type] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult,
    ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip
COMPARISONS: dict[type, tuple[type, ...]] = {
    ast.Lt: (ast.LtE, ast.GtE), ast.LtE: (ast.Lt, ast.Gt), ast.Gt: (ast.GtE, ast.LtE), ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,), ast.NotIn: (ast.In,),
}  # fmt: skip
PAIRS = (("min", "max"), ("minimum", "maximum"), ("Min", "Max"), ("all", "any"), ("argmin", "argmax"),
         ("floor", "ceil"), ("sin", "cos"), ("sinh", "cosh"))  # fmt: skip
OTHER_NAME = {**dict(PAIRS), **{second: first for first, second in PAIRS}}
PLAIN = (ast.Constant, ast.Name, ast.Attribute, ast.Slice)  # expressions that need no brackets
MESSAGES = frozenset({"invalid", "IncompatibleError", "Source", "Claim"})


@dataclass(frozen=True)
class Mutant:
    """One error in one place.

    Parameters
    ----------
    module : str
        Name of the module in `ufm.theory`.
    key : str
        Description that survives changes elsewhere: function, expression around the place, before and after.
    function : str
        ``module.name`` of the function; "" where its results outlive a test in a cache.
    start, end : int
        Bytes of the source that are replaced.
    text : str
        What they are replaced by.
    """

    module: str
    key: str
    function: str
    start: int
    end: int
    text: str

    def applied(self, source: bytes) -> bytes:
        """The source with the error."""
        return source[: self.start] + self.text.encode() + source[self.end :]


def mutants_of(path: Path) -> list[Mutant]:
    """Every mutant of a module, in the order of its source."""
    return mutants_in(path.read_bytes(), path.stem)


def mutants_in(source: bytes, module: str) -> list[Mutant]:
    """Every mutant of a source text, in its order.

    Examples
    --------
    >>> [m.key for m in mutants_in(b"def f(x):\\n    return x - 3\\n", "room")][:3]
    ['room.f: return x - 3 -> return x + 3', 'room.f: x - 3 -> x - 4', 'room.f: x - 3 -> x - 2']
    """
    lines = source.splitlines(keepends=True)
    begins = [0]
    for line in lines:
        begins.append(begins[-1] + len(line))
    found: list[Mutant] = []
    seen: Counter[str] = Counter()
    for name, function in _functions(ast.parse(source)):
        for node, parent in _mutable(function):
            for other in _others(node):
                key = f"{module}.{name}: {_around(node, parent, node)} -> {_around(node, parent, other)}"
                seen[key] += 1
                if seen[key] > 1:
                    key += f" [{seen[key]}]"
                start = begins[node.lineno - 1] + node.col_offset
                end = begins[node.end_lineno - 1] + node.end_col_offset
                text = ast.unparse(other)
                if isinstance(other, ast.expr) and not isinstance(other, PLAIN):
                    text = f"({text})"
                reached = "" if function.decorator_list else f"{module}.{name}"
                found.append(Mutant(module, key, reached, start, end, text))
    return found


def _functions(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef]]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield node.name, node
        elif isinstance(node, ast.ClassDef):
            for method in node.body:
                if isinstance(method, ast.FunctionDef):
                    yield f"{node.name}.{method.name}", method


def _mutable(node: Any, parent: Any = None) -> Iterator[tuple[Any, Any]]:
    """Nodes below that may be changed, each with the expression or statement around it."""
    if isinstance(node, ast.Raise | ast.JoinedStr | ast.Import | ast.ImportFrom):
        return
    if isinstance(node, ast.Call) and getattr(node.func, "id", "") in MESSAGES:
        return
    yield node, parent
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _mutable(child, node)


def _others(node: Any) -> Iterator[Any]:
    """What a node may be replaced by."""
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        yield ast.BinOp(node.left, OPERATORS[type(node.op)](), node.right)
    if isinstance(node, ast.AugAssign) and type(node.op) in OPERATORS:
        yield ast.AugAssign(node.target, OPERATORS[type(node.op)](), node.value)
    if isinstance(node, ast.Compare):
        for i, operator in enumerate(node.ops):
            for other in COMPARISONS[type(operator)]:
                yield ast.Compare(node.left, [*node.ops[:i], other(), *node.ops[i + 1 :]], node.comparators)
    if isinstance(node, ast.BoolOp):
        yield ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.Not):
        yield node.operand
    if isinstance(node, ast.Constant):
        for value in _other_values(node.value):
            yield ast.Constant(value)
    if isinstance(node, ast.Slice):
        for bound in ("lower", "upper"):
            index = getattr(node, bound)
            if index is not None and not isinstance(index, ast.Constant):
                shifted = ast.BinOp(index, ast.Add(), ast.Constant(1))
                yield ast.Slice(
                    **{"lower": node.lower, "upper": node.upper, "step": node.step, bound: shifted}
                )
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in OTHER_NAME:
        yield ast.Name(OTHER_NAME[node.id])
    if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load) and node.attr in OTHER_NAME:
        yield ast.Attribute(node.value, OTHER_NAME[node.attr])


def _other_values(value: Any) -> list[Any]:
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, complex) or not isinstance(value, int | float):
        return []
    half = value // 2 if isinstance(value, int) and value % 2 == 0 else value / 2
    near = [value + 1, value - 1] if abs(value) < 1e6 and (abs(value) > 1e-3 or value == 0) else []
    different = [other for other in [*near, 2 * value, half] if other != value]
    return [other for i, other in enumerate(different) if other not in different[:i]]


class _Replaced(ast.NodeTransformer):
    def __init__(self, old: Any, new: Any) -> None:
        self.old, self.new = old, new

    def visit(self, node: Any) -> Any:
        return self.new if node is self.old else self.generic_visit(_copy(node))


def _copy(node: Any) -> Any:
    """A node with its own lists, so that a transformer leaves the original as it is."""
    fields = {
        name: list(value) if isinstance(value, list) else value for name, value in ast.iter_fields(node)
    }
    return ast.copy_location(type(node)(**fields), node)


def _around(node: Any, parent: Any, other: Any) -> str:
    """The expression that holds the place, with the place as it is or as it becomes."""
    whole = node if not isinstance(parent, ast.expr | ast.AugAssign | ast.Return | ast.Assign) else parent
    text = ast.unparse(_Replaced(node, other).visit(whole))
    return " ".join(text.split())
