"""HTTP: httpx's and httpcore's clients, and a uvicorn server, over umbel."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

import pytest

pytest.importorskip("httpx")
pytest.importorskip("uvicorn")
pytest.importorskip("anyio")

import anyio
import httpcore
import httpx
import uvicorn

import umbel
from tests.mutants import opaque
from tests.support import PATIENCE, wait_until
from umbel import Address, aio, testing
from umbel.testing.transports import transport_at_hand
from umbel_plugins.integrations.httpcore_backend import UmbelBackend
from umbel_plugins.integrations.httpx_transport import (
    AsyncUmbelTransport,
    UmbelTransport,
)
from umbel_plugins.integrations.uvicorn_server import UmbelServer

if find_spec("uvloop"):  # uvicorn takes it
    import uvloop

    uvloop.new_event_loop().close()  # the first one opens what stays open for good

HERE = "http://here"
#: More than any buffer in between can hold.
MUCH = bytes(range(256)) * (1 << 14)

AnyListener: TypeAlias = umbel.ListenerHandle | aio.AsyncListenerHandle
Scope: TypeAlias = dict[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[dict[str, Any]]]
Send: TypeAlias = Callable[[dict[str, Any]], Awaitable[None]]


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with what was sent, in two pieces; the path may ask for something else."""
    if scope["type"] != "http":
        await live(receive, send)
        return
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    if scope["path"] == "/fail":
        raise ValueError(scope["path"])
    head: list[tuple[bytes, bytes]] = [(b"x-path", scope["raw_path"])]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    half = len(body) // 2
    first = {"type": "http.response.body", "body": bytes(body[:half])}
    await send({**first, "more_body": True})
    await send({"type": "http.response.body", "body": bytes(body[half:])})


async def live(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


def make_server(listener: AnyListener, limit: int | None = None) -> UmbelServer:
    config = uvicorn.Config(application, log_config=None, access_log=False)
    return UmbelServer(config, listener, limit=limit, grace=0.05)


@contextmanager
def serving(address: Address, limit: int | None = None) -> Iterator[UmbelServer]:
    """Run a server in a thread of its own."""
    server = make_server(umbel.listen(address), limit)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started or not thread.is_alive(), "the server")
        yield server
    finally:
        server.should_exit = True
        thread.join(PATIENCE)


@asynccontextmanager
async def serving_here(listener: AnyListener) -> AsyncIterator[UmbelServer]:
    """Run a server in the loop of the caller."""
    server = make_server(listener)
    task = asyncio.create_task(server.serve())
    try:
        async with asyncio.timeout(PATIENCE):
            while not server.started:
                await asyncio.sleep(0)
        yield server
    finally:
        server.should_exit = True
        await task


@pytest.fixture
def server(address: Address) -> Iterator[UmbelServer]:
    with serving(address) as found:
        yield found


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[umbel.StreamHandle]:
    """Give those that `umbel.connect` has made since."""
    found: list[umbel.StreamHandle] = []
    connect = umbel.connect

    def note(to: Address, deadline: int) -> umbel.StreamHandle:
        found.append(connect(to, deadline))
        return found[-1]

    monkeypatch.setattr(umbel, "connect", note)
    return found


# The two together.


@pytest.mark.usefixtures("server")
def test_a_client_gets_what_the_server_sends(address: Address) -> None:
    with httpx.Client(transport=UmbelTransport(address), base_url=HERE) as client:
        answer = client.post("/a%20path?and=query", content=MUCH)

    assert answer.status_code == 200
    assert answer.headers["x-path"] == "/a%20path"
    assert answer.content == MUCH


@pytest.mark.usefixtures("server")
def test_a_client_in_any_loop_gets_it_too(address: Address, backend: str) -> None:
    async def main() -> None:
        transport = AsyncUmbelTransport(address)
        async with httpx.AsyncClient(transport=transport, base_url=HERE) as client:
            answers: list[bytes] = []

            async def ask(body: bytes) -> None:
                answers.append((await client.post("/", content=body)).content)

            async with anyio.create_task_group() as tasks:
                for number in range(20):
                    tasks.start_soon(ask, bytes([number]) * 100_000)

            assert sorted(answers) == [bytes([n]) * 100_000 for n in range(20)]

    anyio.run(main, backend=backend)


@pytest.mark.parametrize("where", ["tcp://127.0.0.1:0", "opaque://here"])
def test_any_transport_carries_it(where: str) -> None:
    async def main() -> None:
        listener = aio.listen(where)
        transport = AsyncUmbelTransport(listener.address)
        async with (
            serving_here(listener),
            httpx.AsyncClient(transport=transport, base_url=HERE) as client,
        ):
            assert (await client.post("/", content=MUCH)).content == MUCH
            assert (await client.post("/", content=b"again")).content == b"again"

    with transport_at_hand(opaque.transport, "opaque"):
        asyncio.run(main())


def test_a_client_and_a_server_share_a_loop(address: Address) -> None:
    async def main() -> None:
        transport = AsyncUmbelTransport(address)
        async with (
            serving_here(aio.listen(address)),
            httpx.AsyncClient(transport=transport) as client,
        ):
            assert (await client.post(HERE, content=b"hello")).content == b"hello"

    asyncio.run(main())


def test_a_connection_is_kept_for_the_next_request(address: Address) -> None:
    with (
        serving(address) as server,
        httpx.Client(transport=UmbelTransport(address), base_url=HERE) as client,
    ):
        for _ in range(3):
            client.get("/")
        state = server.server_state
        wait_until(lambda: state.total_requests == 3, "the end of all requests")

        assert len(state.connections) == 1


def test_it_is_kept_no_longer_than_the_limits_say(
    address: Address, opened: list[umbel.StreamHandle]
) -> None:
    transport = UmbelTransport(address, limits=httpx.Limits(keepalive_expiry=0.001))
    with (
        serving(address),
        httpx.Client(transport=transport, base_url=HERE) as client,
    ):
        for _ in range(2):
            client.get("/")
            umbel.msleep(umbel.within(0.01))

    assert len(opened) == 2


def test_a_stream_of_a_response_may_be_left_early(address: Address) -> None:
    with (
        serving(address),
        httpx.Client(transport=UmbelTransport(address), base_url=HERE) as client,
    ):
        with client.stream("POST", "/", content=MUCH) as answer:
            assert next(answer.iter_raw(16)) == MUCH[:16]

        assert client.post("/", content=b"again").content == b"again"


@pytest.mark.usefixtures("server")
def test_a_stream_of_a_response_may_be_left_early_in_any_loop(
    address: Address, backend: str
) -> None:
    async def main() -> None:
        limits = httpx.Limits(max_connections=1)  # or the second would go elsewhere
        transport = AsyncUmbelTransport(address, limits=limits)
        async with httpx.AsyncClient(transport=transport, base_url=HERE) as client:
            async with client.stream("POST", "/", content=MUCH) as answer:
                assert answer.status_code == 200

            assert (await client.post("/", content=b"again")).content == b"again"

    anyio.run(main, backend=backend)


def test_a_server_with_a_limit_lets_others_wait(address: Address) -> None:
    timeout = httpx.Timeout(PATIENCE, read=0.05)
    transport = UmbelTransport(address)
    with serving(address, limit=1):
        with httpx.Client(transport=UmbelTransport(address)) as first:
            first.get(HERE)
            with (
                httpx.Client(transport=transport, timeout=timeout) as second,
                pytest.raises(httpx.ReadTimeout),
            ):
                second.get(HERE)
        with httpx.Client(transport=UmbelTransport(address)) as third:
            assert third.post(HERE, content=b"my turn").content == b"my turn"


@pytest.mark.usefixtures("server")
def test_an_application_that_fails_is_status_500(address: Address) -> None:
    with httpx.Client(transport=UmbelTransport(address), base_url=HERE) as client:
        assert client.get("/fail").status_code == 500
        assert client.post("/", content=b"still there").content == b"still there"


@pytest.mark.slow
def test_a_server_that_was_replaced_is_found_anew(address: Address) -> None:
    with httpx.Client(transport=UmbelTransport(address), base_url=HERE) as client:
        for body in (b"first", b"second"):
            with serving(address):
                assert client.post("/", content=body).content == body


def test_a_connection_that_the_program_has_closed_is_made_anew(
    address: Address, opened: list[umbel.StreamHandle]
) -> None:
    with (
        serving(address),
        httpx.Client(transport=UmbelTransport(address), base_url=HERE) as client,
    ):
        client.get("/")
        umbel.hclose(opened[0])

        assert client.get("/").status_code == 200


def test_a_server_ends_though_a_client_keeps_its_connection(address: Address) -> None:
    with httpx.Client(transport=UmbelTransport(address)) as client:
        with serving(address) as server:
            client.get(HERE)
        assert not server.server_state.connections


def test_a_server_that_is_told_twice_waits_for_nobody(address: Address) -> None:
    async def main() -> None:
        async with asyncio.timeout(PATIENCE):
            async with serving_here(umbel.listen(address)) as server:
                client = await aio.connect(address)
                head = b"POST / HTTP/1.1\r\nhost: here\r\ncontent-length: 9\r\n\r\n"
                await client.send(head)
                while not server.server_state.tasks:
                    await asyncio.sleep(0)
                server.handle_exit(signal.SIGINT, None)
                server.handle_exit(signal.SIGINT, None)
                server._captured_signals.clear()  # or it would raise them at the end
            umbel.hclose(client)

    asyncio.run(main())


# Each of them alone.


def test_a_blocking_client_lets_other_coroutines_run(address: Address) -> None:
    def answer(stream: umbel.StreamHandle) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += umbel.receive(stream)
        umbel.bsend(stream, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")

    with (
        umbel.listen(address) as listener,
        umbel.go(umbel.serve, listener, answer),
        httpcore.ConnectionPool(network_backend=UmbelBackend(address)) as pool,
    ):
        assert pool.request("GET", HERE).content == b"hello"
        umbel.close(listener)


def test_a_pool_made_for_a_socket_file_connects_to_it(tmp_path: Path) -> None:
    place = str(tmp_path / "x.sock")
    with (
        umbel.listen(Address("ipc", place)),
        httpcore.ConnectionPool(
            uds=place, network_backend=UmbelBackend("mem://elsewhere")
        ) as pool,
        pytest.raises(httpcore.ReadTimeout),
    ):
        pool.request("GET", HERE, extensions={"timeout": {"read": 0.01}})


def test_nobody_there_is_a_connect_error(address: Address) -> None:
    with (
        httpx.Client(transport=UmbelTransport(address)) as client,
        pytest.raises(httpx.ConnectError) as caught,
    ):
        client.get(HERE)

    assert caught.value.request.url == HERE


def test_nobody_there_is_a_connect_error_in_any_loop(
    address: Address, backend: str
) -> None:
    async def main() -> None:
        transport = AsyncUmbelTransport(address)
        async with httpx.AsyncClient(transport=transport) as client:
            with pytest.raises(httpx.ConnectError):
                await client.get(HERE)

    anyio.run(main, backend=backend)


def test_a_server_that_says_nothing_is_a_read_timeout(address: Address) -> None:
    timeout = httpx.Timeout(PATIENCE, read=0.01)
    transport = UmbelTransport(address)
    with (
        umbel.listen(address),
        httpx.Client(transport=transport, timeout=timeout) as client,
        pytest.raises(httpx.ReadTimeout),
    ):
        client.get(HERE)


def test_a_server_that_says_nothing_is_a_read_timeout_in_any_loop(
    address: Address, backend: str
) -> None:
    async def main() -> None:
        timeout = httpx.Timeout(PATIENCE, read=0.01)
        transport = AsyncUmbelTransport(address)
        async with httpx.AsyncClient(transport=transport, timeout=timeout) as client:
            with pytest.raises(httpx.ReadTimeout):
                await client.get(HERE)

    with umbel.listen(address):
        anyio.run(main, backend=backend)


def test_a_server_that_reads_nothing_is_a_write_timeout(address: Address) -> None:
    timeout = httpx.Timeout(PATIENCE, write=0.01)
    transport = UmbelTransport(address)
    with (
        umbel.listen(address),
        httpx.Client(transport=transport, timeout=timeout) as client,
        pytest.raises(httpx.WriteTimeout),
    ):
        client.post(HERE, content=MUCH)


def test_a_server_that_reads_slowly_is_none(address: Address) -> None:
    timeout = httpx.Timeout(60, write=10)

    def read_slowly(stream: umbel.StreamHandle) -> None:
        left = len(MUCH)
        while left > 0:
            umbel.msleep(umbel.within(1))  # 16 s in all
            left -= len(umbel.receive(stream, 1 << 18))
        umbel.bsend(stream, b"HTTP/1.1 204 No Content\r\n\r\n")

    def main() -> None:
        with (
            umbel.listen(address) as listener,
            umbel.go(umbel.serve, listener, read_slowly),
            httpx.Client(transport=UmbelTransport(address), timeout=timeout) as client,
        ):
            assert client.post(HERE, content=MUCH).status_code == 204
            umbel.hclose(listener)

    testing.run(main)


def test_a_full_backlog_is_a_connect_timeout(address: Address) -> None:
    timeout = httpx.Timeout(PATIENCE, connect=0.01)
    transport = UmbelTransport(address)
    with umbel.listen(address, backlog=1), ExitStack() as waiting:

        def fill_the_backlog() -> None:
            while True:
                stream = umbel.connect(address, umbel.within(0.01))
                waiting.callback(umbel.hclose, stream)

        with pytest.raises(umbel.DeadlineError):
            fill_the_backlog()

        with (
            httpx.Client(transport=transport, timeout=timeout) as client,
            pytest.raises(httpx.ConnectTimeout),
        ):
            client.get(HERE)


def test_a_server_that_hangs_up_is_a_protocol_error(address: Address) -> None:
    def hang_up(stream: umbel.StreamHandle) -> None:
        umbel.receive(stream)

    with umbel.listen(address) as listener, umbel.go(umbel.serve, listener, hang_up):
        with (
            httpx.Client(transport=UmbelTransport(address)) as client,
            pytest.raises(httpx.RemoteProtocolError),
        ):
            client.get(HERE)
        umbel.close(listener)


@contextmanager
def breaking_off(address: Address) -> Iterator[None]:
    """Serve halves of bodies."""

    def break_off(stream: umbel.StreamHandle) -> None:
        umbel.receive(stream)
        umbel.bsend(stream, b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf")

    listener = umbel.listen(address)
    thread = threading.Thread(target=umbel.serve, args=(listener, break_off))
    thread.start()
    try:
        yield
    finally:
        umbel.hclose(listener)
        thread.join(PATIENCE)


def test_so_is_one_that_hangs_up_in_the_middle_of_a_body(address: Address) -> None:
    with (
        breaking_off(address),
        httpx.Client(transport=UmbelTransport(address)) as client,
        pytest.raises(httpx.RemoteProtocolError, match="complete message body"),
    ):
        client.get(HERE)


def test_so_is_one_that_hangs_up_in_the_middle_of_a_body_in_any_loop(
    address: Address, backend: str
) -> None:
    async def main() -> None:
        transport = AsyncUmbelTransport(address)
        async with httpx.AsyncClient(transport=transport) as client:
            with pytest.raises(
                httpx.RemoteProtocolError, match="complete message body"
            ):
                await client.get(HERE)

    with breaking_off(address):
        anyio.run(main, backend=backend)


def test_tls_is_refused(address: Address) -> None:
    async def main() -> None:
        async with httpx.AsyncClient(transport=AsyncUmbelTransport(address)) as client:
            with pytest.raises(httpx.UnsupportedProtocol, match="http://"):
                await client.get("https://here")

    with umbel.listen(address) as listener:
        config = uvicorn.Config(application, ssl_certfile="x", log_config=None)
        with pytest.raises(ValueError, match="ssl"):
            UmbelServer(config, listener)
        with (
            httpx.Client(transport=UmbelTransport(address)) as client,
            pytest.raises(httpx.UnsupportedProtocol, match="http://"),
        ):
            client.get("https://here")
        asyncio.run(main())


def test_a_negative_grace_is_refused_and_leaves_the_listener_open(
    address: Address,
) -> None:
    with umbel.listen(address) as listener:
        config = uvicorn.Config(application, log_config=None)
        with pytest.raises(ValueError, match="grace is -1"):
            UmbelServer(config, listener, grace=-1)
        assert listener.address == address


def test_a_server_owns_its_listener(address: Address) -> None:
    listener = umbel.listen(address)
    server = make_server(listener)

    with pytest.raises(umbel.BadHandleError):
        umbel.accept(listener, 0)

    server.close()
    umbel.hclose(umbel.listen(address))


def test_requests_see_what_the_start_of_the_application_has_left(
    address: Address,
) -> None:
    async def remember(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            scope["state"]["greeting"] = b"hello"
            await live(receive, send)
            return
        await send({"type": "http.response.start", "status": 200})
        body = scope["state"].get("greeting")
        await send({"type": "http.response.body", "body": body})

    async def main() -> None:
        config = uvicorn.Config(remember, log_config=None, access_log=False)
        server = UmbelServer(config, umbel.listen(address), grace=0.05)
        task = asyncio.create_task(server.serve())
        async with httpx.AsyncClient(transport=AsyncUmbelTransport(address)) as client:
            response = await client.get(HERE)
        server.should_exit = True
        await task
        assert response.content == b"hello"

    asyncio.run(main())


def test_an_application_is_stopped_if_its_server_can_not_listen(
    address: Address,
) -> None:
    told: list[str] = []

    async def note(scope: Scope, receive: Receive, send: Send) -> None:
        async def receive_and_note() -> dict[str, Any]:
            message = await receive()
            told.append(message["type"])
            return message

        await live(receive_and_note, send)

    server = UmbelServer(uvicorn.Config(note, log_config=None), umbel.listen(address))
    server.close()

    with pytest.raises(umbel.BadHandleError):
        server.run()

    assert told == ["lifespan.startup", "lifespan.shutdown"]


def test_a_server_whose_application_does_not_start_listens_no_more(
    address: Address,
) -> None:
    async def fail(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "not today"})

    config = uvicorn.Config(fail, log_config=None)
    server = UmbelServer(config, umbel.listen(address))

    with pytest.raises(SystemExit):
        server.run()
    with pytest.raises((FileNotFoundError, ConnectionRefusedError)):
        umbel.connect(address)
