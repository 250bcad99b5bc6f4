"""What is known of the peer after an orderly close."""

from __future__ import annotations

from typing import NamedTuple


class CloseReport(NamedTuple):
    """What is known of the peer after an orderly close.

    Attributes:
        consumed: True if the peer read every byte that we sent, False if it did
            not, None if the transport can't tell. Reading is not processing.
        discarded: how many inbound bytes were thrown away while closing.
    """

    consumed: bool | None = None
    discarded: int = 0
