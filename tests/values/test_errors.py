"""Errors: their numbers, their classes, and what they say."""

from __future__ import annotations

import errno
import pickle

import pytest

import umbel
from umbel.errors import UmbelError, system_error


@pytest.mark.parametrize(
    ("error", "number", "base"),
    [
        (umbel.BadHandleError, errno.EBADF, OSError),
        (umbel.NotSupportedError, errno.ENOTSUP, OSError),
        (umbel.BusyError, errno.EBUSY, OSError),
        (umbel.DeadlineError, errno.ETIMEDOUT, TimeoutError),
        (umbel.EndOfStreamError, errno.EPIPE, BrokenPipeError),
        (umbel.BrokenStreamError, errno.ECONNRESET, ConnectionResetError),
        (umbel.UnknownTransportError, errno.EPROTONOSUPPORT, OSError),
        (umbel.PluginError, errno.ELIBACC, OSError),
    ],
)
def test_each_error_has_its_errno_and_pythons_own_class(
    error: type[UmbelError], number: int, base: type[OSError]
) -> None:
    made = error()

    assert isinstance(made, (base, UmbelError))
    assert made.errno == number
    assert made.strerror == error.advice
    assert (made.bytes_done, made.report) == (0, None)


def test_canceled_stands_outside_exception() -> None:
    assert not issubclass(umbel.Canceled, Exception)
    assert umbel.Canceled().errno == errno.ECANCELED
    assert "clean up" in str(umbel.Canceled())


def test_an_error_survives_a_process_boundary() -> None:
    error = umbel.DeadlineError("in words")
    error.bytes_done = 5

    back = pickle.loads(pickle.dumps(error))

    assert (type(back), back.args, back.bytes_done) == (
        umbel.DeadlineError,
        error.args,
        5,
    )


def test_a_system_error_is_of_pythons_class_for_its_errno() -> None:
    error = system_error(errno.ENOENT, "make it first")

    assert isinstance(error, FileNotFoundError)
    assert error.strerror == "No such file or directory: make it first"
