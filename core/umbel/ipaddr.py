"""IP addresses with a port, by libdill's names.

ipaddr_local(None, 5555)              all of this machine's, to listen at
ipaddr_local("eth0", 5555)            that of one interface
ipaddr_remote("example.org", 443)     a machine's, to connect to
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from contextlib import suppress
from typing import Final, NamedTuple, final

from umbel.deadline import FOREVER
from umbel.errors import system_error
from umbel.sockets.hosts import numeric_host

#: Modes: which kind of address is wanted. 0 prefers IPv4, as libdill does today.
IPADDR_IPV4: Final = 1
IPADDR_IPV6: Final = 2
IPADDR_PREF_IPV4: Final = 3
IPADDR_PREF_IPV6: Final = 4

_LAST_PORT: Final = 65535
#: IFNAMSIZ of netdevice(7), without the NUL.
_LONGEST_INTERFACE: Final = 15
#: What getaddrinfo says of a name that nobody has, or that has no such address.
_UNKNOWN: Final = (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", None))


@final
class IpAddress(NamedTuple):
    """Where a TCP socket is. Immutable and hashable.

    Attributes:
        host: a number such as "127.0.0.1" or "::1", never a name; "%eth0" may follow.
        port: 0 to 65535; 0: the system chooses.
    """

    host: str
    port: int

    def __str__(self) -> str:
        shown = f"[{self.host}]" if ":" in self.host else self.host
        return f"{shown}:{self.port}"


def _families(mode: int) -> tuple[int, ...]:
    chosen = {
        0: (4, 6),
        IPADDR_IPV4: (4,),
        IPADDR_IPV6: (6,),
        IPADDR_PREF_IPV4: (4, 6),
        IPADDR_PREF_IPV6: (6, 4),
    }.get(mode)
    if chosen is None:
        raise system_error(errno.EINVAL, f"mode is {mode}: give an IPADDR_ constant")
    return chosen


def _check_port(port: object) -> int:
    if not isinstance(port, int):
        message = f"a port is an int, not {port!r}"
        raise TypeError(message)
    if not 0 <= port <= _LAST_PORT:
        raise system_error(errno.EINVAL, f"port {port}: give 0 to {_LAST_PORT}")
    return port


def _check_name(name: object) -> str:
    if not isinstance(name, str):
        message = f"a name or number is a str, not {name!r}"
        raise TypeError(message)
    return name


def _read(text: str) -> str | None:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return None


def _version(host: str) -> int:
    return ipaddress.ip_address(host).version


def ipaddr_local(name: str | None, port: int, mode: int = 0) -> IpAddress:
    """Give an address of this machine, to listen at.

    Args:
        name: a numeric address, the name of a network interface, or None: all of them.
        port: 0: the system chooses one.
        mode: an IPADDR_ constant; 0: IPv4 if there is one.

    Returns:
        the address.

    Raises:
        OSError: EINVAL, the port or mode makes no sense; ENODEV, there is no such
            interface, or it has no address of that kind.

    Source:
        libdill ipaddr_local(3).
    """
    families = _families(mode)
    _check_port(port)
    if name is None:
        return IpAddress("0.0.0.0" if families[0] == 4 else "::", port)
    number = _read(_check_name(name))
    if number is not None and _version(number) in families:
        return IpAddress(number, port)
    with suppress(UnicodeEncodeError):  # what stands for no bytes names none
        raw = os.fsencode(name)
        for family in families:
            found = _interface_ipv4(raw) if family == 4 else _interface_ipv6(raw)
            if found:
                return IpAddress(found, port)
    message = f"{name!r} is neither an interface with such an address, nor a number"
    raise system_error(errno.ENODEV, message)


def _interface_ipv4(name: bytes) -> str | None:
    import fcntl

    if len(name) > _LONGEST_INTERFACE or b"\0" in name:
        return None
    siocgifaddr = 0x8915  # netdevice(7); Python does not name it
    request = name.ljust(256, b"\0")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            answer = fcntl.ioctl(sock.fileno(), siocgifaddr, request)
        except OSError:
            return None
    return socket.inet_ntoa(answer[20:24])


def _interface_ipv6(name: bytes) -> str | None:
    try:
        # In bytes: a name may be any, and another's must not keep ours from being read.
        with open("/proc/net/if_inet6", "rb") as table:
            rows = [line.split() for line in table]
    except OSError:
        return None
    found = [row for row in rows if row[5] == name]
    # A link's own address (scope 20) works only with the interface's name.
    found.sort(key=lambda row: row[3] == b"20")
    for raw, _, _, scope, _, _ in found:
        host = str(ipaddress.IPv6Address(bytes.fromhex(raw.decode())))
        return f"{host}%{os.fsdecode(name)}" if scope == b"20" else host
    return None


def ipaddr_remote(
    name: str, port: int, mode: int = 0, deadline: int = FOREVER
) -> IpAddress:
    """Give the address of a machine, to connect to.

    Args:
        name: a name, which is looked up in a thread, or a number.
        port: 1 to 65535.
        mode: an IPADDR_ constant; 0: IPv4 if there is one.
        deadline: see `umbel.deadline`.

    Returns:
        the first one.

    Raises:
        OSError: EINVAL, the port or mode makes no sense; EADDRNOTAVAIL, the name is
            unknown, or has no address of that kind.
        DeadlineError: ETIMEDOUT, the look-up took too long.
        Canceled: ECANCELED, the calling coroutine is being canceled.

    Source:
        libdill ipaddr_remote(3).
    """
    found = ipaddr_remotes(name, port, mode, deadline)
    if not found:
        message = f"{name!r} is unknown, or has no address of the wanted kind"
        raise system_error(errno.EADDRNOTAVAIL, message)
    return found[0]


def ipaddr_remotes(
    name: str, port: int, mode: int = 0, deadline: int = FOREVER
) -> list[IpAddress]:
    """Give all addresses of a machine, the preferred kind first.

    Args:
        name: a name, which is looked up in a thread, or a number.
        port: 1 to 65535.
        mode: an IPADDR_ constant; 0: IPv4 first.
        deadline: see `umbel.deadline`.

    Returns:
        the addresses; none if the name is unknown, or has none of the wanted kind.

    Raises:
        OSError: EINVAL, the port or mode makes no sense; EADDRNOTAVAIL, the look-up
            failed, so that nothing is known.
        DeadlineError: ETIMEDOUT, the look-up took too long.
        Canceled: ECANCELED, the calling coroutine is being canceled.

    Source:
        libdill ipaddr_remotes(3).
    """
    families = _families(mode)
    if _check_port(port) == 0:
        message = "port 0 can't be connected to: give 1 to 65535"
        raise system_error(errno.EINVAL, message)
    number = _read(_check_name(name))
    hosts = _look_up(name, deadline) if number is None else [number]
    return [
        IpAddress(host, port)
        for family in families
        for host in hosts
        if _version(host) == family
    ]


def _look_up(name: str, deadline: int) -> list[str]:
    from umbel.coroutines.threads import to_thread

    if "\0" in name:
        return []  # Python would look up what stands before it

    def resolve() -> list[str]:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
        hosts = [numeric_host(where) for _, _, _, _, where in found]
        return list(dict.fromkeys(hosts))  # a file of hosts may name one twice

    try:
        return to_thread(resolve, deadline)
    except ValueError:
        return []  # too long: it can't be anybody's
    except socket.gaierror as error:
        if error.errno in _UNKNOWN:
            return []
        message = f"looking up {name!r} failed: {error.strerror}"
        raise system_error(errno.EADDRNOTAVAIL, message) from None


def ipaddr_str(address: IpAddress) -> str:
    """Give the numeric address without the port, such as "192.168.0.1" or "::1".

    Source:
        libdill ipaddr_str(3).
    """
    return address.host


def ipaddr_family(address: IpAddress) -> int:
    """Give AF_INET or AF_INET6.

    Source:
        libdill ipaddr_family(3).
    """
    return socket.AF_INET if _version(address.host) == 4 else socket.AF_INET6


def ipaddr_sockaddr(address: IpAddress) -> tuple[str, int] | tuple[str, int, int, int]:
    """Give what Python's own sockets take, to connect or bind.

    Raises:
        OSError: ENODEV, the interface that the address names is not there.

    Source:
        libdill ipaddr_sockaddr(3). Differs: the result needs no separate length.
    """
    host, port = address
    if ":" not in host:
        return host, port
    number, _, zone = host.partition("%")
    return number, port, 0, _index_of(zone) if zone else 0


def _index_of(zone: str) -> int:
    if zone.isdigit():
        return int(zone)
    try:
        return socket.if_nametoindex(zone)
    except OSError:
        raise system_error(errno.ENODEV, f"there is no interface {zone!r}") from None


def ipaddr_port(address: IpAddress) -> int:
    """Give the port.

    Source:
        libdill ipaddr_port(3).
    """
    return address.port


def ipaddr_setport(address: IpAddress, port: int) -> IpAddress:
    """Give the same address with another port.

    Source:
        libdill ipaddr_setport(3). Differs: an address never changes.
    """
    return address._replace(port=_check_port(port))


def ipaddr_equal(
    first: IpAddress, second: IpAddress, ignore_port: bool = False
) -> bool:
    """Tell whether two addresses are the same.

    Source:
        libdill ipaddr_equal(3).
    """
    same_host = ipaddress.ip_address(first.host) == ipaddress.ip_address(second.host)
    return same_host and (ignore_port or first.port == second.port)
