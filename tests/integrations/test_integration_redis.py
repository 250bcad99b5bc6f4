"""redis-py against a real Redis, over umbel."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

pytest.importorskip("redis")

import redis
import redis.asyncio as awaited
from redis.backoff import NoBackoff
from redis.retry import Retry

import umbel
from tests.mutants import opaque
from tests.support import soon
from umbel import Address
from umbel.testing import transport_at_hand
from umbel_plugins.integrations.redis_connection import (
    AsyncUmbelConnection,
    UmbelConnection,
)


def make_client(address: Address, **settings: object) -> redis.Redis:
    pool = redis.ConnectionPool(
        connection_class=UmbelConnection,
        address=address,
        **settings,  # type: ignore[arg-type]  # redis-py's to check
    )
    return redis.Redis.from_pool(pool)


def make_awaited(address: Address, **settings: object) -> awaited.Redis:
    pool = awaited.ConnectionPool(
        connection_class=AsyncUmbelConnection,
        address=address,
        **settings,  # type: ignore[arg-type]  # likewise
    )
    return awaited.Redis.from_pool(pool)


def test_redis_keeps_what_it_is_given(redis_address: Address) -> None:
    with make_client(redis_address, decode_responses=True) as client:
        big = "x" * (1 << 20)
        with client.pipeline() as pipeline:
            pipeline.set("big", big)
            pipeline.rpush("list", *"abc")
            pipeline.execute()

        assert client.get("big") == big
        assert client.lrange("list", 0, -1) == ["a", "b", "c"]
        client.flushdb()


def test_redis_publishes_from_one_connection_to_another(redis_address: Address) -> None:
    with make_client(redis_address) as client, client.pubsub() as listening:
        listening.subscribe("news")
        assert listening.get_message(timeout=10.0) is not None  # of the subscription

        client.publish("news", "hello")

        message = listening.get_message(timeout=10.0)
        assert message is not None
        assert message["data"] == b"hello"


def test_a_connection_says_where_it_is(redis_address: Address) -> None:
    assert str(redis_address) in repr(UmbelConnection(address=redis_address))
    assert str(redis_address) in repr(AsyncUmbelConnection(address=redis_address))


def test_a_redis_that_is_not_there_is_an_error_of_redis_py(tmp_path: Path) -> None:
    nobody = Address("ipc", str(tmp_path / "nobody.sock"))
    retry = Retry(NoBackoff(), 0)

    with (
        make_client(nobody, retry=retry) as client,
        pytest.raises(redis.ConnectionError, match=r"nobody\.sock"),
    ):
        client.ping()


def test_a_redis_that_does_not_answer_is_late(address: Address) -> None:
    with (
        umbel.listen(address),
        make_client(
            address, retry=Retry(NoBackoff(), 0), socket_timeout=0.01
        ) as client,
        pytest.raises(redis.TimeoutError),
    ):
        client.ping()


def test_over_streams_without_sockets_there_is_no_redis_and_none_is_left() -> None:
    retry = Retry(NoBackoff(), 0)
    with (
        transport_at_hand(opaque.transport, "opaque"),
        umbel.listen("opaque://x") as listener,
        make_client(listener.address, retry=retry) as client,
    ):
        with pytest.raises(redis.ConnectionError, match="has no stream socket"):
            client.ping()

        with umbel.accept(listener, soon()) as server:
            assert umbel.receive(server, 1, soon()) == b""


@pytest.fixture
def full_address(address: Address) -> Iterator[Address]:
    """Give where someone listens who has no room for more."""
    with umbel.listen(address, backlog=1), ExitStack() as waiting:
        try:
            while True:
                stream = umbel.connect(address, umbel.within(0.01))
                waiting.callback(umbel.hclose, stream)
        except umbel.DeadlineError:
            yield address


def test_a_redis_that_has_no_room_is_late(full_address: Address) -> None:
    retry = Retry(NoBackoff(), 0)
    with (
        make_client(full_address, retry=retry, socket_connect_timeout=0.01) as client,
        pytest.raises(redis.TimeoutError),
    ):
        client.ping()


def test_an_awaited_redis_that_has_no_room_is_late(full_address: Address) -> None:
    async def main() -> None:
        retry = awaited.retry.Retry(NoBackoff(), 0)
        async with make_awaited(
            full_address, retry=retry, socket_connect_timeout=0.01
        ) as client:
            with pytest.raises(redis.TimeoutError):
                await client.ping()

    asyncio.run(main())


def test_who_is_not_known_to_an_awaited_redis_is_told_so(
    redis_address: Address,
) -> None:
    async def main() -> None:
        retry = awaited.retry.Retry(NoBackoff(), 0)
        async with make_awaited(
            redis_address, retry=retry, username="nobody", password="x"
        ) as client:
            with pytest.raises(redis.AuthenticationError):
                await client.ping()

    asyncio.run(main())


def test_many_tasks_share_a_pool_of_awaited_connections(redis_address: Address) -> None:
    async def main() -> None:
        async with make_awaited(redis_address, decode_responses=True) as client:
            await asyncio.gather(*[client.incr("counter") for _ in range(50)])
            big = "x" * (1 << 20)
            await client.set("big", big)

            assert await client.get("counter") == "50"
            assert await client.get("big") == big
            await client.flushdb()

    asyncio.run(main())


def test_an_awaited_redis_that_is_not_there_is_an_error_of_redis_py(
    tmp_path: Path,
) -> None:
    nobody = Address("ipc", str(tmp_path / "nobody.sock"))

    async def main() -> None:
        retry = awaited.retry.Retry(NoBackoff(), 0)
        async with make_awaited(nobody, retry=retry) as client:
            with pytest.raises(redis.ConnectionError, match=r"nobody\.sock"):
                await client.ping()

    asyncio.run(main())
