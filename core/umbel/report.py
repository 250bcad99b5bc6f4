"""What is known of the peer after an orderly close.

Without annotations from __future__, as in `address` and `peer`: typing compiles those
that are strings, and the first of them makes `import umbel` a twentieth slower.
"""

from typing import NamedTuple


class CloseReport(NamedTuple):
    """What is known of the peer after an orderly close.

    Attributes:
        consumed: True if the peer read every byte that we sent, False if it had not
            when the close ended, None if the transport can't tell. A peer that ended
            its own direction first may read on after that: `flush` waits until it has
            read all. Reading is not processing.
        discarded: how many inbound bytes were thrown away while closing.
    """

    consumed: bool | None = None
    discarded: int = 0
