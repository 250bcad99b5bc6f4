"""Descriptors, threads and coroutines together."""

from __future__ import annotations

import os
from typing import assert_type

import umbel


def answer() -> int:
    return 42


def main() -> None:
    reading, writing = os.pipe()
    umbel.fdout(writing, umbel.within(5))
    os.write(writing, b"x")
    umbel.fdin(reading, deadline=umbel.within(5))
    umbel.fdclean(reading)
    os.close(reading)
    os.close(writing)
    assert_type(umbel.to_thread(answer, umbel.within(5)), int)
    assert_type(umbel.now(), int)
    assert_type(umbel.within(0.5), int)
    assert_type(umbel.census(), umbel.Census)
    with umbel.bundle() as work:
        umbel.bundle_go_threadsafe(work, answer)
        umbel.msleep(umbel.within(0.01))


if __name__ == "__main__":
    main()
