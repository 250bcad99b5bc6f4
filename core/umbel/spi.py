"""Everything that a transport or an observer imports.

    from umbel.spi import ListenContext, Listener, hookimpl

    class Transport:
        @hookimpl.listen
        def listen(self, context: ListenContext) -> Listener: ...

    transport = Transport()      # entry point "scheme = package.module:transport"

Hooks of a transport. Each is called for its own scheme only, and raises OSErrors like
any function. A transport has the hooks that it can serve, and at least one of the first
three:

    listen(context: ListenContext) -> Listener
    connect(context: ConnectContext) -> Stream
    pair(context: PairContext) -> tuple[Stream, Stream]
    adopt(context: AdoptContext) -> Stream | Listener
    close(context: CloseContext) -> CloseReport      optional: else `shut_down`
    traits() -> Traits                               for `umbel check`

An observer is a plugin that is not a transport. It may wrap the first five, and two
that core runs itself (`@hookimpl.close.wrapper`, results `Wrapped[CloseReport]` and so
on):

    accept(context: AcceptContext) -> Wrapped[Stream]
    done(context: DoneContext) -> Wrapped[None]

A wrapper that yields an Outcome answers in the transport's place (`Answered[Stream]`).
An observer may also have these hooks, without arguments:

    start()      called once, when it is loaded
    stop()       called when it is removed, or at exit

A transport that has a stream socket needs little more than `SocketStream` and
`SocketListener`. One that waits for anything else uses `Readiness` or `WaitQueue`.
A stream in front of another begins as a `StreamProxy`.
"""

from __future__ import annotations

from umbel.deadline import FOREVER, check_seconds, now
from umbel.errors import (
    BadHandleError,
    BrokenStreamError,
    Canceled,
    DeadlineError,
    EndOfStreamError,
    NotSupportedError,
    UmbelError,
    add_bytes_done,
    require_plain,
    require_run,
    system_error,
)
from umbel.fd import Readiness, WaitQueue
from umbel.plugins.discovery import API_VERSION
from umbel.plugins.hooks import Answered, Wrapped, hookimpl
from umbel.plugins.options import take_options
from umbel.plugins.wrappers import Outcome
from umbel.proxy import StreamProxy
from umbel.report import CloseReport
from umbel.shutdown import shut_down
from umbel.sockets.adoption import adopt_socket
from umbel.sockets.hosts import numeric_host
from umbel.sockets.listener import SocketListener
from umbel.sockets.stream import LOCAL_CAPABILITIES, SEND_BUFFER, SocketStream
from umbel.telling import say
from umbel.transport import (
    AcceptContext,
    AdoptContext,
    CloseContext,
    ConnectContext,
    DescriptorPassing,
    DoneContext,
    Fileno,
    ListenContext,
    Listener,
    ListenerAttempts,
    Names,
    Options,
    PairContext,
    Stream,
    StreamAttempts,
    Traits,
    Transfer,
    UnreadBytes,
    is_stream,
)
from umbel.values.address import Address, split_host
from umbel.values.memory import SHARED_MEMORY, Memory
from umbel.values.peer import PeerIdentity

__all__ = [
    "API_VERSION",
    "FOREVER",
    "LOCAL_CAPABILITIES",
    "SEND_BUFFER",
    "SHARED_MEMORY",
    "AcceptContext",
    "Address",
    "AdoptContext",
    "Answered",
    "BadHandleError",
    "BrokenStreamError",
    "Canceled",
    "CloseContext",
    "CloseReport",
    "ConnectContext",
    "DeadlineError",
    "DescriptorPassing",
    "DoneContext",
    "EndOfStreamError",
    "Fileno",
    "ListenContext",
    "Listener",
    "ListenerAttempts",
    "Memory",
    "Names",
    "NotSupportedError",
    "Options",
    "Outcome",
    "PairContext",
    "PeerIdentity",
    "Readiness",
    "SocketListener",
    "SocketStream",
    "Stream",
    "StreamAttempts",
    "StreamProxy",
    "Traits",
    "Transfer",
    "UmbelError",
    "UnreadBytes",
    "WaitQueue",
    "Wrapped",
    "add_bytes_done",
    "adopt_socket",
    "check_seconds",
    "hookimpl",
    "is_stream",
    "now",
    "numeric_host",
    "require_plain",
    "require_run",
    "say",
    "shut_down",
    "split_host",
    "system_error",
    "take_options",
]
