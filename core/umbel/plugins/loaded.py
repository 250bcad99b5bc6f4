"""A transport that is loaded, and running its hooks.

Hooks are run here, not by pluggy: only the owner's function, inside the wrappers of
observers.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NoReturn, TypeAlias, TypeVar, cast

from umbel.errors import NotSupportedError, PluginError
from umbel.fd import close_if_open, is_open
from umbel.plugins.observers import is_wrapped, run_hook
from umbel.report import CloseReport
from umbel.shutdown import shut_down
from umbel.transport import (
    AdoptContext,
    CloseContext,
    ConnectContext,
    ListenContext,
    Listener,
    PairContext,
    Stream,
    Traits,
)

if TYPE_CHECKING:
    from umbel.plugins.results import Kind

T = TypeVar("T")
C = TypeVar("C")

_Hook: TypeAlias = "Callable[[C], T] | None"

#: Classes of streams that were looked at: `connect` and `accept` have no time for more
#: than a look in here.
known_streams: Final[set[type]] = set()


class Transport:
    """A loaded transport: a scheme, and its plugin's hook functions.

    What the functions give is looked at, inside the wrappers: `results` says how.
    """

    __slots__ = (
        "_adopt",
        "_close",
        "_connect",
        "_listen",
        "_pair",
        "functions",
        "plugin",
        "scheme",
        "source",
    )

    def __init__(
        self, scheme: str, plugin: object, source: str, functions: dict[str, object]
    ) -> None:
        self.scheme = scheme
        self.plugin = plugin
        self.source = source
        self.functions = functions
        # Each gives what it should if its author is right; None: there is none.
        self._listen = cast(
            "_Hook[ListenContext, Listener]", functions.get("umbel_listen")
        )
        self._connect = cast(
            "_Hook[ConnectContext, Stream]", functions.get("umbel_connect")
        )
        self._pair = cast(
            "_Hook[PairContext, tuple[Stream, Stream]]", functions.get("umbel_pair")
        )
        self._adopt = cast(
            "_Hook[AdoptContext, Stream | Listener]", functions.get("umbel_adopt")
        )
        self._close = cast(
            "_Hook[CloseContext, CloseReport]", functions.get("umbel_close")
        )

    def listen(self, context: ListenContext) -> Listener:
        """Run `umbel_listen`."""
        call = self._listen
        if call is None:
            self._refuse("listen")
        return run_hook(
            "umbel_listen",
            context,
            lambda c: self._check("listen", call(c), "a listener"),
        )

    def connect(self, context: ConnectContext) -> Stream:
        """Run `umbel_connect`."""
        if self._connect is None:
            self._refuse("connect")
        return run_hook("umbel_connect", context, self._run_connect)

    def _run_connect(self, context: ConnectContext) -> Stream:
        assert self._connect is not None
        stream = self._connect(context)
        if type(stream) not in known_streams:
            self.require_stream("connect", stream)
        return stream

    def pair(self, context: PairContext) -> tuple[Stream, Stream]:
        """Run `umbel_pair`."""
        if self._pair is None:
            self._refuse("pair")
        return run_hook("umbel_pair", context, self._run_pair)

    def _run_pair(self, context: PairContext) -> tuple[Stream, Stream]:
        assert self._pair is not None
        ends = self._pair(context)
        if not _is_known_pair(ends):
            self._check("pair", ends, "a tuple of two streams")
            known_streams.update(map(type, ends))
        return ends

    def adopt(self, context: AdoptContext) -> Stream | Listener:
        """Run `umbel_adopt`."""
        function = self._adopt
        if function is None:
            self._refuse("adopt")
        kind: Kind = "a listener" if context.is_listener else "a stream"

        def call(given: AdoptContext) -> Stream | Listener:
            return self._check("adopt", function(given), kind)

        if not is_wrapped("umbel_adopt") or not is_open(context.fd):
            return run_hook("umbel_adopt", context, call)

        # A wrapper may refuse what the owner has adopted. That is aborted then, while
        # *fd* must still be the caller's: so the owner gets a copy of it.
        def adopt(given: AdoptContext) -> Stream | Listener:
            copies.append(copy := os.dup(given.fd))
            try:
                return call(given.__replace__(fd=copy))
            except BaseException:
                close_if_open(copies.pop())
                raise

        copies: list[int] = []
        adopted = run_hook("umbel_adopt", context, adopt)
        if copies:
            os.close(context.fd)
        return adopted

    def close(self, context: CloseContext) -> CloseReport:
        """Run `umbel_close`, or the standard shutdown if the plugin has none."""
        call = shut_down if self._close is None else self._run_close
        return run_hook("umbel_close", context, call)

    def _run_close(self, context: CloseContext) -> CloseReport:
        assert self._close is not None
        report = self._close(context)
        if type(report) is not CloseReport:
            self._check("close", report, "a CloseReport")
        return report

    def require_stream(self, hook: str, found: object) -> None:
        """Look at what must be a stream, and is of none of `known_streams`.

        Raises:
            PluginError: ELIBACC, it is none; it has been aborted.
        """
        self._check(hook, found, "a stream")
        known_streams.add(type(found))

    def _check(self, hook: str, found: T, kind: Kind) -> T:
        from umbel.plugins.results import (  # once for each class: not at start
            discard,
            flaw_of,
        )

        flaw = flaw_of(found, kind)
        if not flaw:
            return found
        discard(found)
        raise self.complaint(hook, f"gave {flaw}, where {kind} must come")

    def traits(self) -> Traits | None:
        """Run `umbel_traits`: what it declares of itself, None if it does not.

        Raises:
            PluginError: ELIBACC, it failed, or gave something else.
        """
        function = self.functions.get("umbel_traits")
        if function is None:
            return None
        try:
            traits = cast("Callable[[], object]", function)()
        except Exception as error:
            told = f"{type(error).__name__}: {error}"
            raise self.complaint("traits", f"failed: {told}") from error
        if isinstance(traits, Traits):
            return traits
        from umbel.plugins.results import discard, tell

        discard(traits)
        raise self.complaint("traits", f"gave {tell(traits)}, where Traits must come")

    def complaint(self, hook: str, what: str) -> PluginError:
        """Make the error that says *what* is wrong with a hook."""
        message = f"the hook `{hook}` of the transport {self.scheme!r} ({self.source})"
        return PluginError(f"{message} {what}")

    def can(self, verb: str) -> bool:
        """Tell whether it implements the hook of *verb*."""
        return f"umbel_{verb}" in self.functions

    def _refuse(self, verb: str) -> NoReturn:
        message = f"the transport {self.scheme!r} ({self.source}) can't {verb}"
        raise NotSupportedError(message)


def _is_known_pair(found: object) -> bool:
    if type(found) is not tuple or len(found) != 2:
        return False
    left, right = found
    return (
        type(left) in known_streams
        and type(right) in known_streams
        and left is not right
    )
