"""What hooks give: what is wrong with it, and freeing it.

Plugins need not have met a type checker. An owner that gives nonsense is told by a
PluginError (`loaded`), a wrapper that does in the log (`wrappers`).
"""

from __future__ import annotations

from collections.abc import Sequence
from types import CodeType, CoroutineType, GeneratorType
from typing import Final, Literal, TypeAlias

from umbel.errors import CO_COROUTINE
from umbel.report import CloseReport
from umbel.values.address import Address

Kind: TypeAlias = Literal[
    "a stream", "a listener", "a tuple of two streams", "a CloseReport"
]

#: What core calls of each kind of endpoint.
_METHODS: Final = {
    "a stream": ("send", "receive_into", "done", "abort", "query"),
    "a listener": ("accept", "abort", "query"),
}
#: CO_GENERATOR, CO_COROUTINE and CO_ASYNC_GENERATOR of `inspect`, which takes long to
#: import: a function whose call runs nothing of it.
_NEVER_RUN: Final = 0x20 | CO_COROUTINE | 0x200


def flaw_of(found: object, kind: Kind) -> str:
    """Say what *found* is, if it is no such *kind*; "" if it is one."""
    if kind == "a CloseReport":
        return "" if isinstance(found, CloseReport) else tell(found)
    if kind == "a tuple of two streams":
        return _flaw_of_pair(found)
    methods = _METHODS[kind]
    lacking = [name for name in methods if not callable(_look(found, name))]
    if kind == "a listener":
        address = _look(found, "address")
        if not isinstance(address, Address):
            what = "address" if address is None else "address of class Address"
            lacking.append(what)
    if lacking or isinstance(found, type):
        return tell(found, lacking)
    for name in methods:
        code = getattr(getattr(found, name), "__code__", None)
        if type(code) is CodeType and code.co_flags & _NEVER_RUN:  # a mock's is none
            return f"{tell(found)}, whose {name} only gives a coroutine or generator"
    return ""


def _look(found: object, name: str) -> object:
    """Give an attribute; None if it has none, or fails to tell."""
    try:
        return getattr(found, name, None)
    except Exception:  # noqa: BLE001 - a property's, whatever it is
        return None


def _flaw_of_pair(found: object) -> str:
    if not isinstance(found, tuple):
        return tell(found)
    if len(found) != 2:
        return f"a tuple of {len(found)}"
    flaws = [flaw_of(end, "a stream") for end in found]
    if any(flaws):
        return " and ".join(flaw or "a stream" for flaw in flaws)
    return "the same stream twice" if found[0] is found[1] else ""


def tell(found: object, lacking: Sequence[str] = ()) -> str:
    """Say what *found* is, and what it is *lacking*."""
    if found is None:
        return "None"
    if isinstance(found, CoroutineType):
        return "a coroutine (write `def`, not `async def`)"
    if isinstance(found, GeneratorType):
        return "a generator (only a wrapper yields)"
    if type(found) is tuple:
        return f"a tuple of {len(found)}"
    if isinstance(found, type):
        return f"the class {_name_of(found)} (make an object of it)"
    told = f"an object of class {_name_of(type(found))}"
    return f"{told}, which has no {', '.join(lacking)}" if lacking else told


def show(found: object) -> str:
    """Give the repr of *found*, or say what it is if that fails."""
    try:
        return repr(found)
    except Exception:  # noqa: BLE001 - as in _look
        return tell(found)


def _name_of(kind: type) -> str:
    name = kind.__qualname__
    return name if kind.__module__ == "builtins" else f"{kind.__module__}.{name}"


def discard(found: object) -> None:
    """Free what a hook gave and nobody will use; what can't be freed is logged."""
    if isinstance(found, (tuple, list)):
        for each in found:
            discard(each)
        return
    if isinstance(found, CoroutineType):
        found.close()  # or Python would tell that nobody awaited it
    abort = _look(found, "abort")
    if callable(abort) and not isinstance(found, type):
        try:
            abort()
        except Exception:  # the others must be freed, too
            import logging

            message = "what a hook gave can't be aborted: %s"
            logging.getLogger("umbel").exception(message, _name_of(type(found)))
