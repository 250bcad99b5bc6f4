"""One honest way to move bytes between processes.

Typed byte streams over transports that are found as plugins, with a deadline on every
call and a close that both sides know about: libdill's IPC for Python, from threads,
umbel's own coroutines, asyncio and trio (`umbel.aio`). The README has a first example.
"""

from typing import TYPE_CHECKING, Final

from umbel.coroutines.bundle_handle import BundleHandle
from umbel.coroutines.go import bundle, bundle_go, bundle_wait, go, msleep, yield_
from umbel.deadline import FOREVER, now, within
from umbel.errors import (
    BadHandleError,
    BrokenStreamError,
    BusyError,
    Canceled,
    DeadlineError,
    EndOfStreamError,
    NotSupportedError,
    PluginError,
    UmbelError,
    UnknownTransportError,
)
from umbel.fd import fdclean, fdin, fdout
from umbel.handle import Handle, close, hclose, hown, hquery, hquery as query
from umbel.ipc import (
    ipc_accept,
    ipc_accept_mem,
    ipc_close,
    ipc_connect,
    ipc_connect_mem,
    ipc_done,
    ipc_fromfd,
    ipc_fromfd_mem,
    ipc_listen,
    ipc_listen_mem,
    ipc_listener_fromfd,
    ipc_listener_fromfd_mem,
    ipc_pair,
    ipc_pair_mem,
    ipc_recvfd,
    ipc_sendfd,
)
from umbel.plugins.observers import load_plugins
from umbel.plugins.policy import allow_only, block, prefer
from umbel.report import CloseReport
from umbel.streams.listener import ListenerHandle, accept
from umbel.streams.receiving import brecv, brecvl, receive
from umbel.streams.sending import bsend, bsendl, done, flush
from umbel.streams.stream import StreamHandle
from umbel.users import same_user
from umbel.values.address import Address
from umbel.values.iolist import Skip
from umbel.values.memory import Memory
from umbel.values.peer import PeerIdentity
from umbel.verbs import connect, listen, pair

if TYPE_CHECKING:
    from umbel.activation import activated_listeners
    from umbel.coroutines.channel import ChannelHandle, chdone, chmake, chrecv, chsend
    from umbel.coroutines.choice import Recv, Send, choose
    from umbel.coroutines.threads import bundle_go_threadsafe, to_thread
    from umbel.insight import Census, census, census_on_signal
    from umbel.ipaddr import (
        IPADDR_IPV4,
        IPADDR_IPV6,
        IPADDR_PREF_IPV4,
        IPADDR_PREF_IPV6,
        IpAddress,
        ipaddr_equal,
        ipaddr_family,
        ipaddr_local,
        ipaddr_port,
        ipaddr_remote,
        ipaddr_remotes,
        ipaddr_setport,
        ipaddr_str,
    )
    from umbel.made import hmake
    from umbel.passing import (
        receive_handle,
        receive_with_fds,
        send_handle,
        send_with_fds,
    )
    from umbel.serving import serve
    from umbel.signals import exit_on_signal
    from umbel.tcp import (
        tcp_accept,
        tcp_address,
        tcp_close,
        tcp_connect,
        tcp_done,
        tcp_fromfd,
        tcp_listen,
        tcp_listener_fromfd,
    )

#: What not every program needs is imported when it is first used.
_LATER: Final = {
    "Census": "umbel.insight",
    "activated_listeners": "umbel.activation",
    "ChannelHandle": "umbel.coroutines.channel",
    "Recv": "umbel.coroutines.choice",
    "Send": "umbel.coroutines.choice",
    "chdone": "umbel.coroutines.channel",
    "chmake": "umbel.coroutines.channel",
    "hmake": "umbel.made",
    "choose": "umbel.coroutines.choice",
    "chrecv": "umbel.coroutines.channel",
    "chsend": "umbel.coroutines.channel",
    "bundle_go_threadsafe": "umbel.coroutines.threads",
    "census": "umbel.insight",
    "census_on_signal": "umbel.insight",
    "exit_on_signal": "umbel.signals",
    "receive_handle": "umbel.passing",
    "receive_with_fds": "umbel.passing",
    "send_handle": "umbel.passing",
    "send_with_fds": "umbel.passing",
    "serve": "umbel.serving",
    "to_thread": "umbel.coroutines.threads",
    "IPADDR_IPV4": "umbel.ipaddr",
    "IPADDR_IPV6": "umbel.ipaddr",
    "IPADDR_PREF_IPV4": "umbel.ipaddr",
    "IPADDR_PREF_IPV6": "umbel.ipaddr",
    "IpAddress": "umbel.ipaddr",
    "ipaddr_equal": "umbel.ipaddr",
    "ipaddr_family": "umbel.ipaddr",
    "ipaddr_local": "umbel.ipaddr",
    "ipaddr_port": "umbel.ipaddr",
    "ipaddr_remote": "umbel.ipaddr",
    "ipaddr_remotes": "umbel.ipaddr",
    "ipaddr_setport": "umbel.ipaddr",
    "ipaddr_str": "umbel.ipaddr",
    "tcp_accept": "umbel.tcp",
    "tcp_address": "umbel.tcp",
    "tcp_close": "umbel.tcp",
    "tcp_connect": "umbel.tcp",
    "tcp_done": "umbel.tcp",
    "tcp_fromfd": "umbel.tcp",
    "tcp_listen": "umbel.tcp",
    "tcp_listener_fromfd": "umbel.tcp",
}


if not TYPE_CHECKING:  # or checkers would take any name for one of ours

    def __getattr__(name: str) -> object:
        module = _LATER.get(name)
        if module is None:
            message = f"module 'umbel' has no attribute {name!r}"
            raise AttributeError(message)
        from importlib import import_module

        found: object = getattr(import_module(module), name)
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})


__all__ = [
    "FOREVER",
    "IPADDR_IPV4",
    "IPADDR_IPV6",
    "IPADDR_PREF_IPV4",
    "IPADDR_PREF_IPV6",
    "Address",
    "BadHandleError",
    "BrokenStreamError",
    "BundleHandle",
    "BusyError",
    "Canceled",
    "Census",
    "ChannelHandle",
    "CloseReport",
    "DeadlineError",
    "EndOfStreamError",
    "Handle",
    "IpAddress",
    "ListenerHandle",
    "Memory",
    "NotSupportedError",
    "PeerIdentity",
    "PluginError",
    "Recv",
    "Send",
    "Skip",
    "StreamHandle",
    "UmbelError",
    "UnknownTransportError",
    "accept",
    "activated_listeners",
    "allow_only",
    "block",
    "brecv",
    "brecvl",
    "bsend",
    "bsendl",
    "bundle",
    "bundle_go",
    "bundle_go_threadsafe",
    "bundle_wait",
    "census",
    "census_on_signal",
    "chdone",
    "chmake",
    "choose",
    "chrecv",
    "chsend",
    "close",
    "connect",
    "done",
    "exit_on_signal",
    "fdclean",
    "fdin",
    "fdout",
    "flush",
    "go",
    "hclose",
    "hmake",
    "hown",
    "hquery",
    "ipaddr_equal",
    "ipaddr_family",
    "ipaddr_local",
    "ipaddr_port",
    "ipaddr_remote",
    "ipaddr_remotes",
    "ipaddr_setport",
    "ipaddr_str",
    "ipc_accept",
    "ipc_accept_mem",
    "ipc_close",
    "ipc_connect",
    "ipc_connect_mem",
    "ipc_done",
    "ipc_fromfd",
    "ipc_fromfd_mem",
    "ipc_listen",
    "ipc_listen_mem",
    "ipc_listener_fromfd",
    "ipc_listener_fromfd_mem",
    "ipc_pair",
    "ipc_pair_mem",
    "ipc_recvfd",
    "ipc_sendfd",
    "listen",
    "load_plugins",
    "msleep",
    "now",
    "pair",
    "prefer",
    "query",
    "receive",
    "receive_handle",
    "receive_with_fds",
    "same_user",
    "send_handle",
    "send_with_fds",
    "serve",
    "tcp_accept",
    "tcp_address",
    "tcp_close",
    "tcp_connect",
    "tcp_done",
    "tcp_fromfd",
    "tcp_listen",
    "tcp_listener_fromfd",
    "to_thread",
    "within",
    "yield_",
]
