"""ipc: AF_UNIX stream sockets, by a path or an abstract name.

    ipc:///run/x.sock    ipc:x.sock (relative)    ipc:@name (abstract, Linux only)

Options of `listen`:

    mode=0o600          of the socket file, in force before anyone can connect
    group="www"         that owns it, by name or number
    unlink=False        leave the file when the listener is closed
    takeover=True       replace a live listener: new connections come here, and the
                        old one serves its queue to the end
    allow=same_user     called with a PeerIdentity before accept returns; a peer that is
                        refused sees the end of the stream, or ECONNRESET if it has sent
                        something

Options of `listen`, `connect` and `pair`:

    buffer_size=1 << 20  what a send buffer grows to when it is first full; 0: never
    descriptors=False    the kernel refuses descriptors: EPERM for a peer that sends one
                         (Linux 6.16)

Chapters, as in every transport, if it needs them: the plugin, streams, names,
listening, connecting, errors. Closing is `shut_down`. The facts that it relies on are
in unix(7), unless another source is named; docs/promises.md lists them.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar, cast

from umbel import msleep
from umbel.spi import (
    LOCAL_CAPABILITIES,
    SEND_BUFFER,
    Address,
    AdoptContext,
    CloseContext,
    CloseReport,
    ConnectContext,
    DeadlineError,
    ListenContext,
    NotSupportedError,
    Options,
    PairContext,
    PeerIdentity,
    SocketListener,
    SocketStream,
    Traits,
    Transfer,
    adopt_socket,
    hookimpl,
    now,
    shut_down,
    system_error,
    take_options,
)
from umbel_transports._holder import find_holder

T = TypeVar("T")

#: sun_path holds 108 bytes, the last of which is a NUL.
PATH_MAX: Final = 107
#: Of a path that is reached by its folder: the kernel's own limit, less a NUL.
LONGEST_PATH: Final = 4095
#: What is left of sun_path for an abstract name, whose first byte is a NUL.
ABSTRACT_MAX: Final = 107
#: The number above it means: leave it as it is.
LARGEST_GROUP: Final = (1 << 32) - 2
#: What setsockopt takes.
LARGEST_BUFFER: Final = (1 << 31) - 1
#: A full backlog gives nothing to poll: look again after 1, 2, 4 … 16 ms.
LONGEST_PAUSE: Final = 16
#: How long a racing starter may hold the folder's lock, in seconds.
LOCK_PATIENCE: Final = 2.0
#: The same for who removes its file, and must not block for long.
SHORT_PATIENCE: Final = 0.1
#: Linux 6.16, as Python does not name it yet (asm-generic/socket.h).
SO_PASSRIGHTS: Final = 83


# The plugin.


class IpcTransport:
    """The plugin."""

    @hookimpl.listen
    def listen(self, context: ListenContext) -> SocketListener:
        """Listen at a path that nobody holds."""
        options = take_options(
            context.options,
            mode=int,
            group=(int, str),
            unlink=bool,
            takeover=bool,
            allow=cast("type", Callable),
            **_STREAM_OPTIONS,
        )
        return _listen(context.address, context.backlog, options)

    @hookimpl.connect
    def connect(self, context: ConnectContext) -> SocketStream:
        """Connect, waiting while the backlog is full."""
        options = take_options(context.options, **_STREAM_OPTIONS)
        sock = _open_socket(options)
        try:
            name = _short_name(context.address)
            if name is not None:  # without a context manager, for speed
                _connect(sock, name, context)
            else:
                with _reachable(context.address) as name:
                    _connect(sock, name, context)
            return _make_stream(sock, options)
        except BaseException:
            sock.close()
            raise

    @hookimpl.pair
    def pair(self, context: PairContext) -> tuple[SocketStream, SocketStream]:
        """Make a socket pair."""
        options = take_options(context.options, **_STREAM_OPTIONS)
        left, right = socket.socketpair()
        try:
            _set_descriptors(left, options)
            _set_descriptors(right, options)
            return _make_stream(left, options), _make_stream(right, options)
        except BaseException:
            left.close()
            right.close()
            raise

    @hookimpl.adopt
    def adopt(self, context: AdoptContext) -> SocketStream | SocketListener:
        """Take over a socket. Its file is not ours, unless it was handed on as well."""
        sock = adopt_socket(context.fd, is_listening=context.is_listener)
        if not context.is_listener:
            return SocketStream(sock)
        name = os.fsdecode(sock.getsockname())
        address = context.address
        if not address.location:
            location = "@" + name[1:] if name.startswith("\0") else name
            address = Address("ipc", location)
        return IpcListener(sock, address, {}, _handed_on(address, context.state))

    @hookimpl.traits
    def traits(self) -> Traits:
        """Declare what a local socket can do."""
        return Traits(
            address="ipc:{folder}/{name}.sock",
            capabilities=LOCAL_CAPABILITIES,
            is_filesystem=True,
        )

    @hookimpl.close
    def close(self, context: CloseContext) -> CloseReport:
        """Shut down as libdill's ipc_close does: done, then drain."""
        return shut_down(context)


# Streams.

# Ints, as in `umbel.sockets`: an operation on flags costs as much as a system call.
_NONBLOCK: Final = int(getattr(socket, "SOCK_NONBLOCK", 0))
_KIND: Final = int(socket.SOCK_STREAM) | _NONBLOCK
_STREAM_OPTIONS: Final = {"buffer_size": int, "descriptors": bool}


def _open_socket(options: Options) -> socket.SocketType:
    sock = socket.SocketType(socket.AF_UNIX, _KIND)
    try:
        if not _NONBLOCK:
            sock.setblocking(False)
        _set_descriptors(sock, options)  # now: a peer may send one when connected
    except BaseException:
        sock.close()
        raise
    return sock


def _check_number(options: Options, name: str, most: int, unit: str = "") -> None:
    number = options.get(name)
    if isinstance(number, int) and not 0 <= number <= most:
        message = f"{name}={number}: give 0 to {most}{unit}"
        raise system_error(errno.EINVAL, message)


def _buffer_size(options: Options) -> int:
    _check_number(options, "buffer_size", LARGEST_BUFFER, " bytes")
    size = options.get("buffer_size", SEND_BUFFER)
    assert isinstance(size, int)
    return size


def _make_stream(sock: socket.SocketType, options: Options) -> SocketStream:
    if not options:
        return SocketStream(sock)
    return SocketStream(
        sock, _buffer_size(options), takes_descriptors=_takes_descriptors(options)
    )


def _takes_descriptors(options: Options) -> bool:
    return bool(options.get("descriptors", True))


def _set_descriptors(sock: socket.SocketType, options: Options) -> None:
    """Have the kernel refuse them, if asked to: EPERM for a peer that sends one.

    The streams of a listener inherit this, from the moment when they are connected.
    """
    if _takes_descriptors(options):
        return
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_PASSRIGHTS, 0)
    except OSError as error:
        message = "descriptors=False needs Linux 6.16 or later"
        raise NotSupportedError(message) from error


# Names.


def _handed_on(address: Address, state: Options | None) -> os.stat_result | None:
    """Find the file of a listener that came with *state*, if it is still that file."""
    if not state:
        return None
    try:
        found = os.lstat(address.location)
    except (OSError, ValueError):  # ValueError: a NUL in it
        return None
    is_it = (found.st_dev, found.st_ino) == (state.get("device"), state.get("inode"))
    return found if is_it and stat.S_ISSOCK(found.st_mode) else None


def _check_location(address: Address) -> bytes:
    try:
        raw = os.fsencode(address.location)
    except UnicodeEncodeError as error:
        message = f"the path can't be encoded: {error.reason}"
        raise system_error(errno.EINVAL, message) from None
    if raw in (b"", b"@"):
        message = "the path is empty: write ipc:name.sock or ipc:///folder/name.sock"
        raise system_error(errno.EINVAL, message)
    if len(raw) > LONGEST_PATH:
        message = f"a path can have {LONGEST_PATH} bytes, not {len(raw)}: shorten it"
        raise system_error(errno.ENAMETOOLONG, message)
    if b"\0" in raw:
        message = "the path has a NUL in it: an abstract name starts with @"
        raise system_error(errno.EINVAL, message)
    return raw


def _short_name(address: Address) -> bytes | None:
    """Give the name by which the kernel takes *address*; None for a long path."""
    raw = _check_location(address)
    if not raw.startswith(b"@"):
        return raw if len(raw) <= PATH_MAX else None
    if len(raw) > 1 + ABSTRACT_MAX:
        message = (
            f"{address}: after the @ a name can have {ABSTRACT_MAX} bytes, not "
            f"{len(raw) - 1}: shorten it"
        )
        raise system_error(errno.ENAMETOOLONG, message)
    return b"\0" + raw[1:]


@contextmanager
def _reachable(address: Address) -> Iterator[bytes]:
    """Give the name by which the kernel takes *address*, also a long path."""
    short = _short_name(address)
    if short is not None:
        yield short
    else:
        path = os.fsencode(address.location)
        folder, name = os.path.split(path)
        try:
            at = os.open(folder or b".", getattr(os, "O_PATH", os.O_RDONLY))
        except OSError as error:
            raise _explain(error, address) from None
        try:
            start = b"/proc/self/fd/%d/" % at
            room = PATH_MAX - len(start)
            if len(name) > room:
                message = (
                    f"{address}: the last part of a path of {len(path)} bytes can have "
                    f"{room} bytes at most, not {len(name)}: shorten it, or the whole "
                    f"path to {PATH_MAX}"
                )
                raise system_error(errno.ENAMETOOLONG, message)
            yield start + name
        finally:
            os.close(at)


# Listening.


class IpcListener(SocketListener):
    """A listener that removes its file when it is closed, and may refuse peers."""

    __slots__ = ("_allow", "_file", "_owner_pid", "_takes_descriptors")

    def __init__(
        self,
        sock: socket.SocketType,
        address: Address,
        options: Options,
        file: os.stat_result | None,
    ) -> None:
        super().__init__(sock, address, _buffer_size(options))
        self._allow = cast(
            "Callable[[PeerIdentity], object] | None", options.get("allow")
        )
        self._takes_descriptors = _takes_descriptors(options)
        self._file = file
        self._owner_pid = os.getpid()

    def make_stream(self, sock: socket.SocketType) -> SocketStream | None:
        """As `SocketListener.make_stream`: None for a peer that is not allowed."""
        stream = SocketStream(
            sock, self._send_buffer, takes_descriptors=self._takes_descriptors
        )
        if self._allow is None:
            return stream
        try:
            peer = stream.query(PeerIdentity)
            if peer is not None and self._allow(peer):
                return stream
        except BaseException:
            stream.abort()
            raise
        stream.abort()
        return None

    def query(self, kind: type[T]) -> T | None:
        """As `Listener.query`."""
        if kind is not Transfer:
            return super().query(kind)
        if self._allow is not None:
            message = "a listener with allow= can't be moved: its function stays here"
            raise NotSupportedError(message)
        # A forked child's copy has no file that it could hand on.
        file = self._file if self._owner_pid == os.getpid() else None
        state = {} if file is None else {"device": file.st_dev, "inode": file.st_ino}
        transfer = Transfer(self.fileno(), state, self._release)
        return cast("T", transfer)

    def _release(self) -> None:
        self._file = None

    def abort(self) -> None:
        """As `Listener.abort`. First removes the file, but only if it is still ours."""
        file, self._file = self._file, None
        # A forked child closes only its copy of the descriptor.
        if file is not None and self._owner_pid == os.getpid():
            name = os.fsencode(self.address.location)
            try:
                # Or another listener's could be moved here between look and removal.
                with _locked_folder(name, SHORT_PATIENCE):
                    if os.path.samestat(os.lstat(name), file):
                        os.unlink(name)
            except OSError:
                pass  # removed by someone else: as good
        super().abort()


def _listen(address: Address, backlog: int, options: Options) -> SocketListener:
    location = address.location
    _buffer_size(options)
    _check_number(options, "mode", 0o7777)
    _check_number(options, "group", LARGEST_GROUP)
    if not location.startswith("@") and location:
        location = _absolute(address)
    address = Address("ipc", location)
    sock = _open_socket(options)
    try:
        if location.startswith("@"):
            if options.get("takeover"):
                message = "an abstract name can't be taken over: use a path"
                raise NotSupportedError(message)
            with _reachable(address) as name:
                _bind(sock, name, address)
            file = None
            sock.listen(backlog)
        elif options.get("takeover"):
            file = _replace_file(sock, address, backlog, options)
        else:
            with _reachable(address) as name:
                file = _make_file(sock, name, address, backlog, options)
    except BaseException:
        sock.close()
        raise
    if not options.get("unlink", True):
        file = None
    return IpcListener(sock, address, options, file)


def _absolute(address: Address) -> str:
    """Give the path that another process can use, and that we find after a chdir."""
    location = address.location
    try:
        if ".." in location.split("/") or location.endswith("/"):
            # As the kernel will read it: what leads to ".." may be a symbolic link.
            return os.path.join(os.getcwd(), location)
        return os.path.abspath(location)
    except FileNotFoundError:
        message = (
            f"{address}: the current folder was deleted: change to another, or give a "
            "whole path"
        )
        raise system_error(errno.ENOENT, message) from None


def _make_file(
    sock: socket.SocketType,
    name: bytes,
    address: Address,
    backlog: int,
    options: Options,
) -> os.stat_result:
    """Make the socket file, then listen: nobody can connect before."""
    try:
        _bind(sock, name, address)
        group = options.get("group")
        if group is not None:
            os.chown(name, -1, _group_number(group))
        mode = options.get("mode")
        if isinstance(mode, int):
            os.chmod(name, mode)
        file = os.lstat(name)
        sock.listen(backlog)
        return file
    except BaseException:  # also Ctrl-C, right after the bind
        if sock.getsockname():
            os.unlink(name)
        raise


def _group_number(group: object) -> int:
    if isinstance(group, int):
        return group
    import grp

    try:
        return grp.getgrnam(str(group)).gr_gid
    except KeyError:
        message = f"there is no group {group!r} on this machine"
        raise system_error(errno.EINVAL, message) from None


def _replace_file(
    sock: socket.SocketType, address: Address, backlog: int, options: Options
) -> os.stat_result:
    """Listen under another name, then move that over the old one: no gap, no loss."""
    target = address.location
    _check_location(address)
    _require_replaceable(target, address)
    beside = f"{os.path.dirname(target)}/.{os.getpid()}-{id(sock):x}"
    with _reachable(Address("ipc", beside)) as name:
        file = _make_file(sock, name, address, backlog, options)
        try:
            # Or who replaces a stale file could take ours for that one.
            with _locked_folder(os.fsencode(target)):
                _require_replaceable(target, address)
                os.rename(beside, target)
        except BaseException:
            os.unlink(name)
            raise
    return file


def _require_replaceable(target: str, address: Address) -> None:
    try:
        found = os.lstat(target)
    except OSError:
        return  # there is none, or what is made beside it will tell
    _require_socket(found, address)


def _bind(sock: socket.SocketType, name: bytes, address: Address) -> None:
    try:
        sock.bind(name)
        return
    except OSError as error:
        if error.errno != errno.EADDRINUSE or name.startswith(b"\0"):
            if error.errno == errno.EADDRINUSE:
                raise _in_use(name, address) from None
            raise _explain(error, address) from None
    with _locked_folder(name):
        _remove_stale(name, address)
        try:
            sock.bind(name)
        except OSError as error:
            raise _explain(error, address) from None


def _require_socket(found: os.stat_result, address: Address) -> None:
    if stat.S_ISSOCK(found.st_mode):
        return
    if stat.S_ISLNK(found.st_mode):
        message = (
            f"{address} is a symbolic link to {os.readlink(address.location)}: listen "
            "there, or choose another path"
        )
    else:
        what = _kind_of(found)
        message = f"{address} is {what}, and no socket: choose another path"
    raise system_error(errno.EADDRINUSE, message)


@contextmanager
def _locked_folder(name: bytes, patience: float = LOCK_PATIENCE) -> Iterator[None]:
    """Keep out others who are replacing or removing a file at the same moment."""
    try:
        folder = os.open(os.path.dirname(name) or b".", os.O_RDONLY)
    except OSError:
        folder = -1
    if folder < 0:
        # It may be written to, but not read. If it is gone, what follows will tell.
        yield
        return
    try:
        give_up = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > give_up:
                    break  # bind decides all the same, only less politely
                time.sleep(0.001)
        yield
    finally:
        os.close(folder)


def _remove_stale(name: bytes, address: Address) -> None:
    try:
        found = os.lstat(name)
    except FileNotFoundError:
        return
    _require_socket(found, address)
    # A datagram connect tells a held socket (EPROTOTYPE) from a stale one
    # (ECONNREFUSED) and leaves nothing in a live backlog.
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        number = probe.connect_ex(name)
    if number == errno.ECONNREFUSED:
        os.unlink(name)
    elif number != errno.ENOENT:
        raise _in_use(name, address)


# Connecting.


def _connect(sock: socket.SocketType, name: bytes, context: ConnectContext) -> None:
    pause = 1
    while True:
        try:
            sock.connect(name)
            return
        except BlockingIOError:
            pass  # the backlog is full, and nothing is there to poll
        except OSError as error:
            raise _explain(error, context.address) from None
        deadline = context.deadline
        if 0 <= deadline <= now():
            message = (
                f"the backlog of {context.address} was full until the deadline: "
                "the listener is too slow, or stuck"
            )
            raise DeadlineError(message)
        until = now() + pause
        msleep(until if deadline < 0 else min(until, deadline))
        pause = min(pause * 2, LONGEST_PAUSE)


# Errors.


def _in_use(name: bytes, address: Address) -> OSError:
    pid = find_holder(name)
    who = "a live process" if pid is None else f"the live process {pid}"
    message = f"{address} is in use by {who}: stop it, or use another path"
    return system_error(errno.EADDRINUSE, message)


_ADVICE: Final = {
    errno.ENOENT: "there is no such file: start the listener, or mend the path",
    errno.ECONNREFUSED: "nobody listens there: the listener has stopped",
    errno.EACCES: "no permission for the socket file or its folder",
    errno.EADDRINUSE: "the name is taken: stop who holds it, or choose another",
    errno.ENOTDIR: "a part of the path is not a folder",
    errno.EPROTOTYPE: "that socket is not a stream socket",
}


def _kind_of(found: os.stat_result) -> str:
    if stat.S_ISDIR(found.st_mode):
        return "a folder"
    return "a fifo" if stat.S_ISFIFO(found.st_mode) else "a file"


def _explain(error: OSError, address: Address) -> OSError:
    number = error.errno or errno.EIO
    if number == errno.ECONNREFUSED and not address.location.startswith("@"):
        try:
            found = os.stat(address.location)
        except OSError:
            pass  # it went meanwhile
        else:
            if not stat.S_ISSOCK(found.st_mode):
                what = f"{address} is {_kind_of(found)}, and no socket: mend the path"
                return system_error(number, what)
    if number == errno.ENOENT and not os.path.lexists(
        os.path.dirname(address.location) or "."
    ):
        return system_error(number, f"{address}: its folder does not exist: make it")
    return system_error(number, f"{address}: {_ADVICE.get(number, 'it failed')}")


transport = IpcTransport()
