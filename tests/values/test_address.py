"""Addresses: what they mean, and that they survive being written."""

from __future__ import annotations

import errno
import os
import re

import pytest
from hypothesis import given, strategies as st

import umbel
from umbel import Address


@pytest.mark.parametrize(
    ("text", "address", "written"),
    [
        ("ipc:///run/x.sock", Address("ipc", "/run/x.sock"), "ipc:///run/x.sock"),
        ("ipc:/run/x.sock", Address("ipc", "/run/x.sock"), "ipc:///run/x.sock"),
        ("ipc:x.sock", Address("ipc", "x.sock"), "ipc:x.sock"),
        ("ipc:@name", Address("ipc", "@name"), "ipc:@name"),
        ("ipc:a%20b%25", Address("ipc", "a b%"), "ipc:a b%25"),
        ("mem://name", Address("mem", "name"), "mem://name"),
        ("tcp://[::1]:80", Address("tcp", "[::1]:80"), "tcp://[::1]:80"),
    ],
)
def test_an_address_is_read_and_written(
    text: str, address: Address, written: str
) -> None:
    assert Address.parse(text) == address
    assert str(address) == written


@given(
    st.sampled_from(["ipc", "mem", "x-y.z+1"]),
    st.binary(min_size=1).filter(lambda raw: b"\0" not in raw),
)
def test_what_was_written_is_read_as_the_same(scheme: str, raw: bytes) -> None:
    address = Address(scheme, os.fsdecode(raw))

    assert Address.parse(str(address)) == address


def test_an_empty_address_is_einval() -> None:
    with pytest.raises(OSError, match="is empty") as caught:
        Address.parse("")

    assert caught.value.errno == errno.EINVAL


@pytest.mark.parametrize("text", ["x.sock", "/run/x.sock", ":x", "Ipc:x", "1a:x"])
def test_what_has_no_scheme_is_einval(text: str) -> None:
    with pytest.raises(OSError, match="scheme") as caught:
        Address.parse(text)

    assert caught.value.errno == errno.EINVAL


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("x.sock", "write 'ipc:x.sock' for a socket file"),
        ("./a:b", "write 'ipc:./a:b' for a socket file"),
        ("127.0.0.1:80", "write 'tcp://127.0.0.1:80' for a port"),
        (":80", "write 'tcp://:80' for a port"),
        ("IPC:x.sock", "write 'ipc:x.sock'"),
    ],
)
def test_an_address_without_a_scheme_is_told_what_was_meant(
    text: str, meant: str
) -> None:
    with pytest.raises(OSError, match=f"{re.escape(meant)}$"):
        Address.parse(text)


@pytest.mark.parametrize("text", ["ipc:%", "ipc:%2", "ipc:%zz", "ipc:a%", "ipc:a%  b"])
def test_a_broken_escape_is_einval(text: str) -> None:
    with pytest.raises(OSError, match="hexadecimal") as caught:
        Address.parse(text)

    assert caught.value.errno == errno.EINVAL


@pytest.mark.parametrize("text", ["mem://\ud800", "mem://%41\ud800"])
def test_text_that_stands_for_no_bytes_is_einval(text: str) -> None:
    with pytest.raises(OSError, match="can't be encoded") as caught:
        Address.parse(text)

    assert caught.value.errno == errno.EINVAL


@pytest.mark.parametrize("scheme", ["ipc", "mem", "tcp"])
def test_nothing_is_opened_at_an_address_that_cannot_be_written(scheme: str) -> None:
    # It could not even be told in a census, nor in a warning.
    for call in (umbel.listen, umbel.connect):
        with pytest.raises(OSError, match="can't be encoded") as caught:
            call(Address(scheme, "\ud800:1"))
        assert caught.value.errno == errno.EINVAL


def test_what_is_no_text_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="str"):
        umbel.connect(5)  # type: ignore[arg-type]


def test_addresses_are_hashable_and_immutable() -> None:
    address = Address("ipc", "x")

    assert {address: 1}[Address.parse("ipc:x")] == 1
    with pytest.raises(AttributeError):
        address.scheme = "mem"  # type: ignore[misc]
