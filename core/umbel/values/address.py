"""Addresses: a scheme, and what its transport makes of the rest.

    ipc:///run/x.sock    ipc:x.sock    ipc:@abstract    mem://name    other://host:1

`Address.parse(str(address)) == address` holds for each. Characters that would
be misread are percent-encoded; a path may hold any bytes but NUL.
Annotations are not strings here: see `report`.
"""

import errno
import os
import re
from functools import lru_cache
from typing import Final, NamedTuple, Self

from umbel.errors import system_error

#: Addresses that are kept as read: a program connects to a few, again and again.
ADDRESSES: Final = 128
_SCHEME: Final = r"[a-z][a-z0-9+.-]*"
#: Why something is none.
NO_SCHEME: Final = "can't be a scheme (a to z, then also 0 to 9, +, - and .)"
_ESCAPE: Final = rb"%([0-9A-Fa-f]{2})"
_BROKEN: Final = rb"%(?![0-9A-Fa-f]{2})"
_PLAIN: Final = frozenset(
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
    b"/@._-~!$&'()*+,;=:[] "
)


class Address(NamedTuple):
    """Where a transport listens or connects. Immutable and hashable.

    Attributes:
        scheme: which transport.
        location: the transport's own part, percent-decoded; bytes that are not UTF-8
            become surrogates, as in `os.fsdecode`.
    """

    scheme: str
    location: str

    def __str__(self) -> str:
        raw = os.fsencode(self.location)
        text = "".join(chr(b) if b in _PLAIN else f"%{b:02X}" for b in raw)
        # "//" in front tells a location from a relative path that starts alike.
        slashes = "" if text[:1] not in ("", "/") and self.scheme == "ipc" else "//"
        return f"{self.scheme}:{slashes}{text}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read an address.

        Args:
            text: "scheme:rest" or "scheme://rest".

        Returns:
            the address.

        Raises:
            OSError: EINVAL, no scheme, a broken percent escape, or text that can't be
                encoded.
            TypeError: *text* is not a string.
        """
        return cls(*_split(_require_text(text)))


def is_scheme(text: str) -> bool:
    """Tell whether *text* can stand in front of an address."""
    return re.fullmatch(_SCHEME, text) is not None


@lru_cache(ADDRESSES)
def _split(text: str) -> tuple[str, str]:
    scheme, colon, rest = text.partition(":")
    if not colon or not is_scheme(scheme):
        if not text:
            message = "the address is empty: write 'ipc:name.sock' for a socket file"
            raise system_error(errno.EINVAL, message)
        what = f"{text!r} has no scheme"
        if colon and re.fullmatch(r"\w[\w+.-]*", scheme):
            what = f"{scheme!r} {NO_SCHEME}"
        message = f"{what}: {_advice(text, scheme, rest)}"
        raise system_error(errno.EINVAL, message)
    require_encodable(text)
    return scheme, _decode(rest.removeprefix("//"), text)


def _advice(text: str, before: str, after: str) -> str:
    """Say what the writer of an address without a scheme may have meant."""
    if before != before.lower() and is_scheme(before.lower()):
        return f"write '{before.lower()}:{after}'"
    if re.fullmatch(r"[0-9]+", after) and "/" not in before:
        return f"write 'tcp://{text}' for a port"
    return f"write 'ipc:{text}' for a socket file"


def _require_text(text: object) -> str:
    if isinstance(text, str):
        return text
    message = f"an address is a str such as 'ipc:x.sock', not {text!r}"
    raise TypeError(message)


def require_encodable(location: str) -> None:
    """EINVAL if *location* stands for no bytes: such an address can't be written."""
    try:
        os.fsencode(location)
    except UnicodeEncodeError as error:
        message = f"{location!r} can't be encoded: {error.reason}"
        raise system_error(errno.EINVAL, message) from None


def _decode(text: str, whole: str) -> str:
    if "%" not in text:
        return text
    raw = os.fsencode(text)
    if re.search(_BROKEN, raw):
        message = f"{whole!r}: after % come two hexadecimal digits; % itself is %25"
        raise system_error(errno.EINVAL, message)
    return os.fsdecode(re.sub(_ESCAPE, lambda e: bytes([int(e[1], 16)]), raw))


def path_address(path: str | bytes | os.PathLike[str] | os.PathLike[bytes]) -> Address:
    """Make the ipc address of a path: a file, or an abstract name after "@"."""
    return Address("ipc", os.fsdecode(path))


def split_host(location: str) -> tuple[str, str] | None:
    """Take "host:port", or "[host]:port" for IPv6, apart.

    Args:
        location: of an address, or from a setting.

    Returns:
        the host, perhaps empty, without brackets, and the port, which is digits of
        ASCII; None: it is something else.

    Source:
        RFC 3986, section 3.2.2.
    """
    host, colon, port = location.rpartition(":")
    is_bracketed = host.startswith("[") and host.endswith("]")
    if is_bracketed:
        host = host[1:-1]
    # Brackets are for IPv6: without them, which part is the port?
    is_host = is_bracketed == (":" in host) and "\0" not in host
    if not colon or not is_host or not (port.isascii() and port.isdigit()):
        return None
    return host, port
