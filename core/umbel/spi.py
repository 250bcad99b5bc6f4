"""All that a transport or plugin imports.

    from umbel.spi import ListenContext, Listener, hookimpl

    class Transport:
        @hookimpl
        def umbel_listen(self, context: ListenContext) -> Listener: ...

    transport = Transport()      # entry point "scheme = package.module:transport"

Hooks, each called for its own scheme alone, each raising OSErrors as any function:

    umbel_listen(context: ListenContext) -> Listener
    umbel_connect(context: ConnectContext) -> Stream
    umbel_pair(context: PairContext) -> tuple[Stream, Stream]
    umbel_adopt(context: AdoptContext) -> Stream | Listener
    umbel_close(context: CloseContext) -> CloseReport      optional: `shut_down`

A plugin that is no transport may also have these, without arguments:

    umbel_start()      called once, when it is loaded
    umbel_stop()       called when it is taken out, or at exit

A transport that has a stream socket needs little more than `SocketStream` and
`SocketListener`. One that waits for anything else uses `Readiness` or `WaitQueue`.
"""

from __future__ import annotations

from typing import Final

from pluggy import HookimplMarker

from umbel.address import Address
from umbel.deadline import FOREVER, now
from umbel.errors import (
    BadHandleError,
    BrokenStreamError,
    DeadlineError,
    EndOfStreamError,
    NotSupportedError,
    system_error,
)
from umbel.fd import Readiness, WaitQueue
from umbel.memory import SHARED_MEMORY, Memory
from umbel.observe import Outcome
from umbel.options import take_options
from umbel.report import CloseReport
from umbel.shutdown import shut_down
from umbel.sockets import SocketListener, SocketStream, adopt_socket
from umbel.transport import (
    AcceptContext,
    AdoptContext,
    CloseContext,
    ConnectContext,
    DescriptorPassing,
    DirectReceive,
    DirectSend,
    DoneContext,
    Fileno,
    ListenContext,
    Listener,
    Options,
    PairContext,
    PeerIdentity,
    Stream,
    Transfer,
    UnreadBytes,
)

#: Marks the functions that implement hooks.
hookimpl: Final = HookimplMarker("umbel")

__all__ = [
    "FOREVER",
    "SHARED_MEMORY",
    "AcceptContext",
    "Address",
    "AdoptContext",
    "BadHandleError",
    "BrokenStreamError",
    "CloseContext",
    "CloseReport",
    "ConnectContext",
    "DeadlineError",
    "DescriptorPassing",
    "DirectReceive",
    "DirectSend",
    "DoneContext",
    "EndOfStreamError",
    "Fileno",
    "ListenContext",
    "Listener",
    "Memory",
    "NotSupportedError",
    "Options",
    "Outcome",
    "PairContext",
    "PeerIdentity",
    "Readiness",
    "SocketListener",
    "SocketStream",
    "Stream",
    "Transfer",
    "UnreadBytes",
    "WaitQueue",
    "adopt_socket",
    "hookimpl",
    "now",
    "shut_down",
    "system_error",
    "take_options",
]
