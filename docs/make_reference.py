"""Write reference.md from the docstrings: `python docs/make_reference.py`."""

from __future__ import annotations

import ast
import inspect
import io
import re
from collections.abc import Callable, Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from textwrap import dedent, indent
from types import ModuleType
from typing import NamedTuple

import umbel
from umbel import aio, bridges, plugins, spi, testing, typing
from umbel.bridges import files
from umbel.testing import conformance, pytest_plugin
from umbel.values.record import Record

PAGE = Path(__file__).with_name("reference.md")

BEGINNING = """\
# Reference

Made from the docstrings by `docs/make_reference.py`.

A deadline is an `int`: milliseconds on the clock of `now`; -1, or any other
negative number, waits for ever; 0, or any moment that has passed, tries once.

A class with parentheses is made by calling it; the parameters of a record or named
tuple are its attributes, too. You do not call a class without parentheses.

Parts: [umbel](#umbel), [umbel.aio](#umbelaio-for-asyncio-and-trio),
[umbel.bridges](#umbelbridges-to-what-others-wrote),
[umbel.testing](#umbeltesting-for-tests),
[umbel.plugins](#umbelplugins-for-observers), [umbel.spi](#umbelspi-for-transports),
[umbel.typing](#umbeltyping-for-annotations).
"""

#: Classes with a constructor that is not for users: functions of umbel's call it.
GIVEN = {
    "AnyioStream",
    "BufferedStreamFile",
    "StreamServer",
    "StreamTransport",
    "Trial",
}
#: What is longer is no help in a heading.
LONGEST_VALUE = 100


class Definition(NamedTuple):
    """A constant's or an attribute's, as it stands in the source."""

    name: str
    kind: str  # its annotation, or ""
    value: str  # or "", if there is none worth showing
    comment: str  # that of `#:` above it, or ""

    @property
    def heading(self) -> str:
        """Give its name, with its type or its value."""
        kind = f": {self.kind}" if self.kind else ""
        return self.name + kind + (f" = {self.value}" if self.value else "")


def _value(node: ast.Assign | ast.AnnAssign) -> str:
    found = node.value
    if found is None:
        return ""
    if isinstance(found, ast.Constant) and "TypeAlias" in _kind(node):
        return str(found.value)
    text = ast.unparse(found)
    # What is private, empty, or found out says nothing.
    is_plain = not re.search(r"\b_[a-zA-Z]", text) and text != "{}"
    is_plain = is_plain and not text.startswith("anyio.")
    return text if is_plain and len(text) <= LONGEST_VALUE else ""


def _kind(node: ast.Assign | ast.AnnAssign) -> str:
    return ast.unparse(node.annotation) if isinstance(node, ast.AnnAssign) else ""


def _comment(lines: list[str], number: int) -> str:
    """Give the `#:` comment above a line, or above the constants that it follows."""
    above: list[str] = []
    for line in reversed(lines[: number - 1]):
        is_comment = line.strip().startswith("#:")
        if not is_comment and (above or not re.match(r"[A-Z]", line)):
            break
        if is_comment:
            above.insert(0, line.strip().removeprefix("#:").strip())
    return "\n".join(above)


def _definitions(source: str, tree: ast.AST, owner: type) -> Iterator[Definition]:
    """Give what is assigned to names, or to attributes: *owner* says which."""
    lines = source.splitlines()
    nodes = [n for n in ast.walk(tree) if isinstance(n, (ast.Assign, ast.AnnAssign))]
    for node in sorted(nodes, key=lambda node: node.lineno):
        target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
        if isinstance(target, owner):
            name = target.id if isinstance(target, ast.Name) else target.attr
            # Of what differs by version or checker only its comment holds.
            is_sure = isinstance(node, ast.AnnAssign) or not node.col_offset
            value = _value(node) if is_sure else ""
            comment = _comment(lines, node.lineno)
            yield Definition(name, _kind(node), value, comment)


@cache
def _constants(module: str) -> tuple[dict[str, Definition], dict[str, str]]:
    """Give what a module defines by name, and where it has other names from."""
    source = inspect.getsource(import_module(module))
    tree = ast.parse(source)
    found: dict[str, Definition] = {}
    for definition in _definitions(source, tree, ast.Name):
        found.setdefault(definition.name, definition)
    origins = {
        alias.asname or alias.name: node.module or ""
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    return found, origins


def _constant(module: str, name: str) -> Definition:
    found, origins = _constants(module)
    origin = origins.get(name, "")
    if origin.startswith("umbel"):
        return _constant(origin, name)
    return found[name]


@cache
def _fields(found: type) -> tuple[Definition, ...]:
    """Give what the body of a class declares for others, and its bases' of ours."""
    fields: dict[str, Definition] = {}
    # Those of errors are told once.
    bases = (found,) if issubclass(found, BaseException) else found.__mro__
    for base in reversed(bases):
        if not base.__module__.startswith("umbel"):
            continue
        source = dedent(inspect.getsource(base))
        (tree,) = ast.parse(source).body
        assert isinstance(tree, ast.ClassDef)
        for node in tree.body:
            if isinstance(node, ast.AnnAssign) and "ClassVar" not in _kind(node):
                for field in _definitions(source, node, ast.Name):
                    fields[field.name] = field
            if isinstance(node, ast.FunctionDef) and node.name == "__init__":
                for field in _definitions(source, node, ast.Attribute):
                    if field.comment and field.kind:
                        fields[field.name] = field._replace(value="")
    return tuple(f for name, f in fields.items() if not name.startswith("_"))


def _is_record(found: type) -> bool:
    return issubclass(found, Record) or hasattr(found, "_fields")


def _call(found: type) -> str:
    """Give the parentheses of a class that users call; else ""."""
    if issubclass(found, BaseException) or getattr(found, "_is_protocol", False):
        return ""
    if _is_record(found):
        fields = ", ".join(
            f"{f.name}: {f.kind}" + (f" = {f.value}" if f.value else "")
            for f in _fields(found)
        )
        return f"({fields})" if fields else ""
    (maker,) = [base for base in found.__mro__ if "__init__" in vars(base)][:1]
    if not maker.__module__.startswith("umbel") or found.__name__ in GIVEN:
        return ""
    return _signature(found).removesuffix(" -> None")


def _text(name: str, found: object) -> str:
    text = inspect.getdoc(found) or ""
    twin = getattr(umbel, name, None)
    if found is not twin and text == inspect.getdoc(twin):
        first, *_ = text.splitlines()
        return f"{first}\n\nAs `umbel.{name}`, awaited."
    return text


def _signature(function: Callable[..., object], *, of_method: bool = False) -> str:
    # Annotations are strings, which Python shows with quotes.
    found = inspect.signature(function)
    if of_method:
        _self, *others = found.parameters.values()
        found = found.replace(parameters=others)
    text = re.sub(r"(: |-> )(['\"])(.*?)\2", r"\1\3", str(found))
    text = re.sub(r"\bumbel\.[a-z_.]+\.(?=[A-Z])", "", text)  # by their names
    # By name, since it differs between versions of Python.
    name = "buffer_size: int = io.DEFAULT_BUFFER_SIZE"
    return text.replace(f"buffer_size: int = {io.DEFAULT_BUFFER_SIZE}", name)


def _methods(found: type) -> list[tuple[str, object]]:
    """Give what a class and its bases of ours define for others, in their order."""
    members = {
        name: member
        for base in reversed(found.__mro__)
        if base.__module__.startswith("umbel")
        for name, member in vars(base).items()
        if not name.startswith("_")
    }
    return [
        (name, getattr(member, "__wrapped__", member))
        for name, member in members.items()
        if isinstance(member, (property, classmethod, staticmethod))
        or inspect.isfunction(member)
    ]


def _field(field: Definition) -> str:
    return field.heading + "\n" + indent(field.comment, "    ")


def _method(name: str, member: object) -> str:
    heading = name
    if inspect.isfunction(member):
        heading += _signature(member, of_method=True)
    if inspect.iscoroutinefunction(member):
        heading = f"await {heading}"
    return heading + "\n" + indent(inspect.getdoc(member) or "", "    ") + "\n"


def _bases(found: object) -> str:
    """Say what else catches an exception."""
    if not inspect.isclass(found) or not issubclass(found, BaseException):
        return ""
    return (
        f"\n\nA subclass of {' and '.join(base.__name__ for base in found.__bases__)}."
    )


def _section(prefix: str, name: str, found: object) -> str:
    heading = f"{prefix}{name}"
    if inspect.isfunction(found):
        heading += _signature(found)
    if inspect.iscoroutinefunction(found):
        heading = f"await {heading}"
    if inspect.isclass(found):
        heading += _call(found)
    text = f"### `{heading}`\n\n```text\n{_text(name, found)}{_bases(found)}\n```\n"
    if inspect.isclass(found):
        fields = () if _is_record(found) else _fields(found)
        members = [*map(_field, fields), *(_method(*m) for m in _methods(found))]
        if members:
            listed = "\n\n".join(member.rstrip("\n") for member in members)
            text += f"\n```text\n{listed}\n```\n"
    return text


def _constant_section(prefix: str, module: ModuleType, name: str) -> str:
    found = _constant(module.__name__, name)._replace(kind="")
    text = f"### `{prefix}{found.heading}`\n"
    assert found.comment, f"{name} has no comment"
    return f"{text}\n```text\n{found.comment}\n```\n"


def _chapter(
    module: ModuleType, title: str, prefix: str = "", known: ModuleType | None = None
) -> list[str]:
    """Give what a module has for others, without what is known."""
    parts = [f"## {title}\n"]
    if module is not umbel:
        parts.append(f"```text\n{inspect.getdoc(module)}\n```\n")
    for name in module.__all__:
        found = getattr(module, name)
        if known is not None and name in known.__all__:
            continue
        is_ours = str(getattr(found, "__module__", "")).startswith("umbel")
        if is_ours and (inspect.isfunction(found) or inspect.isclass(found)):
            parts.append(_section(prefix, name, found))
        else:
            parts.append(_constant_section(prefix, module, name))
    return parts


def make_reference() -> str:
    """Give the page as it should be."""
    parts = [
        BEGINNING,
        *_chapter(umbel, "`umbel`"),
        *_chapter(aio, "`umbel.aio`, for asyncio and trio", "aio."),
        *_chapter(bridges, "`umbel.bridges`, to what others wrote"),
        _section("files.", "StreamFile", files.StreamFile),
        *_chapter(testing, "`umbel.testing`, for tests"),
        *_chapter(conformance, "`umbel.testing.conformance`, the kit"),
        "## `umbel.testing.pytest_plugin`, the kit under pytest\n",
        f"```text\n{inspect.getdoc(pytest_plugin)}\n```\n",
        "## `umbel.plugins`, for observers\n",
        "Observers that are installed are loaded by `umbel.load_plugins`; these two\n"
        "functions are for those that a program makes itself.\n",
        _section("plugins.", "add_plugin", plugins.add_plugin),
        _section("plugins.", "remove_plugin", plugins.remove_plugin),
        *_chapter(spi, "`umbel.spi`, for transports", known=umbel),
        *_chapter(typing, "`umbel.typing`, for annotations"),
    ]
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(make_reference())
