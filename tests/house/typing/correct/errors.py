"""Errors are OSErrors; a coroutine's cancellation is none."""

from __future__ import annotations

import errno
import os
from typing import assert_type

import umbel


def main() -> None:
    left, right = umbel.pair()
    with right:
        try:
            right.receive(deadline=0)
        except umbel.DeadlineError as error:
            assert_type(error.errno, int)
        try:
            umbel.bsend(left, b"x" * 10_000_000, umbel.now())
        except TimeoutError as error:
            assert error.errno == errno.ETIMEDOUT
        umbel.hclose(left)
        try:
            left.send(b"x")
        except umbel.BadHandleError as error:
            assert os.strerror(error.errno)


def sleeper() -> None:
    try:
        umbel.msleep(umbel.FOREVER)
    except umbel.Canceled as canceled:
        assert_type(canceled.errno, int)
        raise


if __name__ == "__main__":
    main()
    umbel.hclose(umbel.go(sleeper))
