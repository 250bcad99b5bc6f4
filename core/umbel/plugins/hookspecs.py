"""The hooks, as pluggy checks them. `umbel.spi` tells what each must do."""

from __future__ import annotations

import pluggy

from umbel.report import CloseReport
from umbel.transport import (
    AcceptContext,
    AdoptContext,
    CloseContext,
    ConnectContext,
    DoneContext,
    ListenContext,
    Listener,
    PairContext,
    Stream,
    Traits,
)

hookspec = pluggy.HookspecMarker("umbel")


@hookspec(firstresult=True)
def umbel_listen(context: ListenContext) -> Listener | None:
    """Start listening at `context.address`."""


@hookspec(firstresult=True)
def umbel_connect(context: ConnectContext) -> Stream | None:
    """Connect to `context.address` before `context.deadline`."""


@hookspec(firstresult=True)
def umbel_pair(context: PairContext) -> tuple[Stream, Stream] | None:
    """Make two streams that are each other's peers."""


@hookspec(firstresult=True)
def umbel_adopt(context: AdoptContext) -> Stream | Listener | None:
    """Take over `context.fd`, which something else has opened."""


@hookspec(firstresult=True)
def umbel_close(context: CloseContext) -> CloseReport | None:
    """Shut `context.endpoint` down in good order before `context.deadline`."""


@hookspec(firstresult=True)
def umbel_traits() -> Traits | None:
    """Declare what the transport can do, and where it can be tried."""


@hookspec
def umbel_start() -> None:
    """Only for observers: called once, when the observer is loaded."""


@hookspec
def umbel_stop() -> None:
    """Only for observers: called when the observer is removed, or at exit."""


@hookspec(firstresult=True)
def umbel_accept(context: AcceptContext) -> Stream | None:
    """Only for wrappers: a listener accepts."""


@hookspec(firstresult=True)
def umbel_done(context: DoneContext) -> None:
    """Only for wrappers: a stream ends its own direction."""
