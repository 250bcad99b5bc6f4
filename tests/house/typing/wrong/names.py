"""Names that umbel does not have, where it finds others when they are first used."""

from __future__ import annotations

import umbel
from umbel import bridges, typing


def use(deadline: int) -> None:
    if deadline == umbel.FOREVR:  # error
        umbel.listen("ipc:x", allow=umbel.same_usr)  # error
    print(bridges.as_sokcet)  # error
    print(typing.Bufer)  # error
