"""What came of behaviours, of one transport, and where."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence

from umbel.plugins.discovery import own_version
from umbel.values.record import Record


class Verdict(Record):
    """What came of one behaviour, with one driver.

    Attributes:
        number: of the behaviour.
        title: what must be so.
        driver: of `DRIVERS`; "" if it does not depend on it.
        state: "passed", "failed", "skipped" since it does not apply, or "not tried"
            for want of time.
        reason: why it did not pass.
        seconds: that it took.
    """

    number: int
    title: str
    driver: str
    state: str
    reason: str = ""
    seconds: float = 0.0

    def as_json(self) -> dict[str, object]:
        """Give it as numbers and strings: all its fields, whatever the verdict."""
        return {
            "number": self.number,
            "title": self.title,
            "driver": self.driver,
            "state": self.state,
            "reason": self.reason,
            "seconds": round(self.seconds, 3),
        }


class Report(Record):
    """What came of all behaviours of one transport.

    Attributes:
        scheme: of the transport.
        source: the distribution that it comes from, and its version.
        declared: what it says of itself, by the names of its traits.
        verdicts: one of each behaviour and driver.
    """

    scheme: str
    source: str
    declared: Mapping[str, object]
    verdicts: Sequence[Verdict]

    @property
    def failed(self) -> list[Verdict]:
        """Those that failed."""
        return [v for v in self.verdicts if v.state == "failed"]

    @property
    def untried(self) -> list[Verdict]:
        """Those for which no time was left."""
        return [v for v in self.verdicts if v.state == "not tried"]

    def as_json(self) -> dict[str, object]:
        """Give it as numbers, strings and lists."""
        return {
            "scheme": self.scheme,
            "source": self.source,
            "declared": dict(self.declared),
            **environment(),
            "passed": not self.failed and not self.untried,
            "behaviours": [verdict.as_json() for verdict in self.verdicts],
        }


def environment() -> dict[str, str]:
    """Say where a report was made."""
    return {
        "umbel": own_version(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
    }
