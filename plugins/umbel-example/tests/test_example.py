"""What is special about this transport; what all must show is in the kit."""

from __future__ import annotations

from collections.abc import Callable

import umbel


def test_conformance(umbel_behaviour: Callable[[str], None]) -> None:
    umbel_behaviour("example")


def test_the_name_is_free_again_when_the_listener_is_closed() -> None:
    for _ in range(2):
        with umbel.listen("example://again") as listener:
            client = umbel.connect(listener.address, umbel.within(5))
            server = umbel.accept(listener, umbel.within(5))
            with umbel.go(umbel.close, server, umbel.within(5)):
                umbel.close(client, umbel.within(5))
