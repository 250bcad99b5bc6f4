"""How something ended, as one word from a short list."""

from __future__ import annotations

import errno
from typing import Final

from umbel.spi import BadHandleError

OK: Final = "ok"
#: An error without an errno, such as a TypeError.
OTHER: Final = "other"


def outcome_name(error: BaseException | None) -> str:
    """Give "ok", the errno's name such as "ECONNRESET", or "other"."""
    if error is None:
        return OK
    number = getattr(error, "errno", None)
    return errno.errorcode.get(number, OTHER) if isinstance(number, int) else OTHER


def is_stop(verb: str, error: BaseException | None) -> bool:
    """Tell whether a listener was closed while it accepted: so servers are stopped."""
    return verb == "accept" and isinstance(error, BadHandleError)
