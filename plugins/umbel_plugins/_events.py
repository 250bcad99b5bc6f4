"""The events that `trace` logs, as text, as fields and as JSON."""

from __future__ import annotations

import json
import logging
from typing import Final

from umbel.spi import Address, CloseReport

#: Digits of a duration in seconds: microseconds.
DIGITS: Final = 6


class Event:
    """One event: a line of the log.

    Attributes:
        name: "listen", "connect", "accept", "pair", "adopt", "done" or "close".
        address: where; a listener's own once it listens.
        handle: of the stream or listener that it is about; None for what has none yet.
        fd: the descriptor of that, or of what was opened, if it has one.
        duration: seconds that it took, including waiting.
        outcome: "ok", or the name of an errno, or "other".
        error: what was raised.
        report: what a close knows about the peer.
    """

    __slots__ = (
        "address",
        "duration",
        "error",
        "fd",
        "handle",
        "name",
        "outcome",
        "report",
    )

    def __init__(
        self,
        name: str,
        address: Address,
        handle: int | None = None,
        fd: int | None = None,
    ) -> None:
        self.name = name
        self.address = address
        self.handle = handle
        self.fd = fd
        self.duration = 0.0
        self.outcome = ""
        self.error: BaseException | None = None
        self.report: CloseReport | None = None

    def fields(self) -> dict[str, object]:
        """Give the facts by name; what is not known is None."""
        found: dict[str, object] = {
            "event": self.name,
            "scheme": self.address.scheme,
            "address": str(self.address),
            "handle": self.handle,
            "fd": self.fd,
            "duration": round(self.duration, DIGITS),
            "outcome": self.outcome,
            "errno": getattr(self.error, "errno", None),
            "error": self.reason(),
        }
        if self.report is not None:
            found |= {
                "consumed": self.report.consumed,
                "discarded": self.report.discarded,
            }
        return found

    def reason(self) -> str | None:
        """Say what went wrong."""
        if self.error is None:
            return None
        return getattr(self.error, "strerror", None) or str(self.error)

    def describe(self) -> str:
        """Say it in one line, for people."""
        of = "" if self.handle is None else f" handle {self.handle}"
        reason = self.reason()
        why = "" if reason is None else f" ({reason})"
        return (
            f"{self.name} {self.address}{of}: {self.outcome} "
            f"after {self.duration * 1000:.1f} ms{why}"
        )


#: What `Event.fields` gives, in the order in which it is written.
_FIELDS: Final = (
    "event",
    "scheme",
    "address",
    "handle",
    "fd",
    "duration",
    "outcome",
    "errno",
    "error",
    "consumed",
    "discarded",
)


class JsonFormatter(logging.Formatter):
    """Makes a line of JSON from a record of `trace`; unknown facts are left out."""

    def format(self, record: logging.LogRecord) -> str:
        """As `logging.Formatter.format`."""
        facts: dict[str, object] = {
            "time": round(record.created, DIGITS),
            "thread": record.threadName,
        }
        for name in _FIELDS:
            value = getattr(record, name, None)
            if value is not None:
                facts[name] = value
        return json.dumps(facts, ensure_ascii=True)
