"""Every public name says what it takes, gives and refuses, in numpydoc form, with an example that runs."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest

import ufm
import ufm.checks

SECTIONS = ("Parameters", "Attributes", "Returns", "Yields", "Raises", "Notes", "References", "Examples")
# what raises by itself: helpers that refuse a value in one sentence
REFUSING = {
    name
    for name, value in vars(ufm.checks).items()
    if inspect.isfunction(value) and "raise " in inspect.getsource(value)
} | {"check_problem"}
SOURCE = r"arXiv|derived here"


def defined_in(module: ModuleType) -> list[str]:
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and is_documented(value) and value.__module__ == module.__name__
    ]


def is_documented(value: Any) -> bool:
    return inspect.isfunction(value) or inspect.isclass(value)


def methods(cls: type) -> dict[str, Any]:
    """Public methods and properties that the package defines, not those of its bases in Python."""
    return {
        name: vars(owner)[name]
        for owner in reversed(cls.__mro__)
        if owner.__module__.startswith("ufm.")
        for name in vars(owner)
        if not name.startswith("_") and is_method(vars(owner)[name])
    }


def is_method(value: Any) -> bool:
    return inspect.isfunction(value) or isinstance(value, (property, classmethod, staticmethod))


def public() -> dict[str, Any]:
    found = {f"ufm.{name}": getattr(ufm, name) for name in ufm.__all__}
    rooms = {name: getattr(ufm.theory, name) for name in ufm.theory.__all__}
    for name, module in {
        "metrics": ufm.metrics,
        "solutions": ufm.solutions,
        "plotting": ufm.plotting,
    }.items():
        found |= {f"{name}.{item}": getattr(module, item) for item in module.__all__}
    for name, module in {
        **{f"theory.{room}": value for room, value in rooms.items()},
        "claims": ufm.claims,
    }.items():
        found |= {f"{name}.{item}": getattr(module, item) for item in defined_in(module)}
    for cls in (ufm.Trajectory, ufm.UFM, ufm.DUFM, ufm.RegressionUFM):
        found |= {f"{cls.__name__}.{name}": value for name, value in methods(cls).items()}
    once: dict[int, str] = {}
    for name, value in found.items():
        if is_documented(value) or is_method(value):
            once.setdefault(id(value), name)
    return {name: found[name] for name in once.values()}


PUBLIC = public()


class Entry(NamedTuple):
    names: tuple[str, ...]
    text: str


def function_of(value: Any) -> Any:
    if isinstance(value, property):
        return value.fget
    return value.__func__ if isinstance(value, (classmethod, staticmethod)) else value


def docstring(value: Any) -> str:
    return inspect.getdoc(function_of(value)) or ""


def sections(value: Any) -> dict[str, str]:
    titles = "|".join(SECTIONS)
    parts = re.split(rf"^({titles})\n-+\n", docstring(value), flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def entries(text: str) -> list[Entry]:
    """Entries of a section: a line without indent, and what is indented below it."""
    found = re.findall(r"^(\S.*\n?(?:(?:[ ]+.*)?\n?)*)", text, re.M)
    heads = (entry.split("\n")[0].split(" : ")[0] for entry in found)
    return [
        Entry(tuple(name.strip(" *") for name in head.split(",")), entry)
        for head, entry in zip(heads, found, strict=True)
    ]


def parameters(value: Any) -> list[str]:
    try:
        names = inspect.signature(function_of(value)).parameters
    except (TypeError, ValueError):
        return []
    return [name for name in names if name not in ("self", "cls")]


def returned(value: Any) -> str:
    """Annotation of what a function returns; empty for a class."""
    return "" if inspect.isclass(value) else str(function_of(value).__annotations__.get("return", ""))


def refuses(value: Any) -> bool:
    """Whether the body itself raises, or calls what refuses a value; functions inside it are others."""
    function = function_of(value)
    if inspect.isclass(function):
        function = vars(function).get("__post_init__") or vars(function).get("__init__")
        if not inspect.isfunction(function):
            return False
    try:
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
    except (OSError, TypeError):  # written by dataclass
        return False
    nodes: list[ast.AST] = list(tree.body)
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Raise):
            return True
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in REFUSING:
            return True
        if not isinstance(node, (ast.FunctionDef, ast.Lambda)):
            nodes += ast.iter_child_nodes(node)
    return False


def misses_shape(text: str) -> bool:
    return bool(re.search(r"\b(ndarray|array_like|arrays?)\b", text.split("\n")[0])) and "shape" not in text


def gaps(name: str, value: Any) -> list[str]:
    """What the docstring of a public name does not say.

    A property is asked for a sentence and a shape alone, for it takes nothing and its class has the example; an error
    is built by the package, so its arguments need no list.
    """
    text, found = docstring(value), sections(value)
    missing = []
    if not re.match(r"\S.*[.:]$", text.split("\n")[0]):
        missing.append("a first line that is a sentence")
    is_error = inspect.isclass(value) and issubclass(value, BaseException)
    if not isinstance(value, property) and not is_error:
        listed = entries(found.get("Parameters", found.get("Attributes", "")))
        given = [item for entry in listed for item in entry.names]
        if sorted(given) != sorted(parameters(value)):
            missing.append(f"Parameters {parameters(value)}, and names {given}")
        missing += [f"a shape of {', '.join(entry.names)}" for entry in listed if misses_shape(entry.text)]
    gives = returned(value)
    if isinstance(value, property):
        if re.search("ndarray|NDArray", gives) and "shape" not in text:
            missing.append("a shape")
    else:
        if gives not in ("", "None", "Never") and not {"Returns", "Yields"} & set(found):
            missing.append("Returns")
        missing += [
            f"a shape of {e.names}" for e in entries(found.get("Returns", "")) if misses_shape(e.text)
        ]
        if ">>> " not in found.get("Examples", ""):
            missing.append("Examples")
    if refuses(value) and "Raises" not in found:
        missing.append("Raises")
    if name.startswith("theory.") and not re.search(SOURCE, text + (inspect.getmodule(value).__doc__ or "")):
        missing.append("a source")
    return missing


@pytest.mark.parametrize("name", PUBLIC)
def test_docstring_is_whole(name):
    missing = gaps(name, PUBLIC[name])
    assert not missing, f"{name} misses {'; '.join(missing)}"


def test_examples_are_run_with_the_tests():
    options = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["tool"]["pytest"][
        "ini_options"
    ]
    assert "--doctest-modules" in options["addopts"].split()
    assert "ufm" in options["testpaths"]
    assert not [name for name, value in PUBLIC.items() if "+SKIP" in docstring(value)]


def test_what_is_missing_is_found():
    def half(x: Any, y: Any) -> Any:
        """No sentence

        Parameters
        ----------
        x : ndarray
            One array.
        """
        if x is None:
            raise ValueError
        return x / 2

    assert gaps("theory.room.half", half) == [
        "a first line that is a sentence",
        "Parameters ['x', 'y'], and names ['x']",
        "a shape of x",
        "Returns",
        "Examples",
        "Raises",
        "a source",
    ]
