"""pg8000 against a real PostgreSQL: it takes a socket, which a stream can be."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

pytest.importorskip("pg8000")

from pg8000 import DatabaseError  # type: ignore[import-untyped]  # it has no types
from pg8000.native import Connection  # type: ignore[import-untyped]  # likewise

import umbel
from tests.support import PATIENCE
from umbel import Address
from umbel.bridges import as_socket


@pytest.fixture
def connection(postgres_address: Address) -> Iterator[Connection]:
    made = connect(postgres_address)
    yield made
    made.close()


def connect(address: Address) -> Connection:
    stream = umbel.connect(address, umbel.within(PATIENCE))
    return Connection("umbel", database="postgres", sock=as_socket(stream))


def test_postgres_keeps_rows(connection: Connection) -> None:
    connection.run("CREATE TEMPORARY TABLE stalk (name text, height int)")
    for name, height in (("dill", 120), ("fennel", 200)):
        connection.run(
            "INSERT INTO stalk VALUES (:name, :height)", name=name, height=height
        )

    rows = connection.run("SELECT name, height FROM stalk ORDER BY height DESC")

    assert rows == [["fennel", 200], ["dill", 120]]


def test_postgres_sends_more_than_any_buffer_holds(connection: Connection) -> None:
    rows = connection.run("SELECT i, repeat('x', 1000) FROM generate_series(1, 5000) i")

    assert len(rows) == 5000
    assert rows[-1] == [5000, "x" * 1000]


def test_an_error_leaves_the_connection_good(
    connection: Connection,
) -> None:
    with pytest.raises(DatabaseError, match="division by zero"):
        connection.run("SELECT 1 / 0")

    assert connection.run("SELECT 1") == [[1]]


def test_postgres_knows_who_connects(postgres_address: Address) -> None:
    with umbel.connect(postgres_address, umbel.within(PATIENCE)) as stream:
        peer = umbel.query(stream, umbel.PeerIdentity)
        umbel.bsend(stream, b"\0\0\0\x08\x04\xd2\x16\x2f")  # may we speak TLS?

        assert umbel.brecv(stream, 1, umbel.within(PATIENCE)) == b"N"
    assert peer.uid == os.stat(postgres_address.location).st_uid
