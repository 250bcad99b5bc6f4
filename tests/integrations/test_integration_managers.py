"""multiprocessing's connections and managers, over umbel."""

from __future__ import annotations

import multiprocessing
import pickle
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from multiprocessing import AuthenticationError, resource_tracker
from multiprocessing.context import SpawnContext
from multiprocessing.managers import BaseManager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import umbel
from tests.mutants import opaque
from tests.support import PATIENCE, run_python
from umbel import Address
from umbel.testing.transports import transport_at_hand
from umbel_plugins.integrations.managers import UMBEL, Client, Listener

KEY = b"known to both"


class Counter:
    """Counts, in the process of its manager."""

    def __init__(self) -> None:
        self._count = 0

    def add(self, number: int) -> int:
        self._count += number
        return self._count


class Manager(BaseManager):
    if TYPE_CHECKING:

        def counter(self) -> Counter: ...


Manager.register("counter", Counter)


def add_elsewhere(counter: Counter, number: int) -> None:
    counter.add(number)


def test_a_connection_carries_objects_both_ways(
    address: Address, threads: ThreadPoolExecutor
) -> None:
    with Listener(address, authkey=KEY) as listener:
        connecting = threads.submit(Client, listener.address, KEY)
        with listener.accept() as server, connecting.result() as client:
            client.send({"question": range(3)})
            assert server.recv() == {"question": range(3)}
            server.send("answer")
            assert client.recv() == "answer"


def test_who_does_not_know_the_key_is_not_let_in(
    address: Address, threads: ThreadPoolExecutor
) -> None:
    with Listener(address, authkey=KEY) as listener:
        connecting = threads.submit(Client, listener.address, b"guessed")

        with pytest.raises(AuthenticationError):
            listener.accept()
        with pytest.raises(AuthenticationError):
            connecting.result()


def test_who_is_not_let_in_is_hung_up_on(
    address: Address, threads: ThreadPoolExecutor
) -> None:
    with Listener(address, authkey=KEY) as listener, umbel.connect(address) as client:
        accepting = threads.submit(listener.accept)
        umbel.bsend(client, b"\0\0\0\x05wrong")

        # The error is kept, and by it the connection: nobody else closes it.
        assert isinstance(accepting.exception(), AuthenticationError)
        while umbel.receive(client, deadline=umbel.within(PATIENCE)):
            pass  # the challenge


def test_a_key_must_be_bytes(address: Address) -> None:
    with pytest.raises(TypeError, match="authkey"):
        Listener(address, authkey="text")  # type: ignore[arg-type]  # that is the point
    with pytest.raises(TypeError, match="authkey"):
        Client(address, "text")  # type: ignore[arg-type]  # likewise


def test_a_closed_listener_accepts_nothing_more(address: Address) -> None:
    listener = Listener(address)
    listener.close()
    listener.close()

    with pytest.raises(umbel.BadHandleError):
        listener.accept()
    with pytest.raises((FileNotFoundError, ConnectionRefusedError)):
        Client(address)


def test_a_forgotten_listener_warns_and_is_closed(address: Address) -> None:
    listener = Listener(address)

    with pytest.warns(ResourceWarning, match="never closed"):
        del listener

    with pytest.raises((FileNotFoundError, ConnectionRefusedError)):
        Client(address)


def test_a_client_connects_within_its_time(address: Address) -> None:
    with Listener(address, backlog=1), ExitStack() as waiting:

        def fill_the_backlog() -> None:
            while True:
                waiting.enter_context(Client(address, timeout=0.01))

        with pytest.raises(umbel.DeadlineError):
            fill_the_backlog()


def test_a_stream_without_a_descriptor_is_refused_and_closed() -> None:
    with (
        transport_at_hand(opaque.transport, "opaque"),
        umbel.listen("opaque://x"),
        pytest.raises(umbel.NotSupportedError),
    ):
        Client("opaque://x")


@pytest.fixture(scope="module")
def spawn() -> SpawnContext:
    resource_tracker.ensure_running()  # one for all, until the interpreter's end
    return multiprocessing.get_context("spawn")


@pytest.mark.slow
def test_a_manager_serves_other_processes(tmp_path: Path, spawn: SpawnContext) -> None:
    address = f"ipc:{tmp_path}/manager.sock"
    manager = Manager(address, authkey=KEY, serializer=UMBEL, ctx=spawn)
    with manager:
        counter = manager.counter()
        assert counter.add(1) == 1

        process = spawn.Process(target=add_elsewhere, args=(counter, 10))
        process.start()
        process.join()

        assert process.exitcode == 0
        assert counter.add(100) == 111
    assert not any(tmp_path.iterdir())


def test_a_manager_serves_its_own_process_without_any_file() -> None:
    # In a process of its own, since the server leaves a thread for good.
    code = """
import threading
from multiprocessing.managers import BaseManager
from umbel_plugins.integrations.managers import UMBEL

class Manager(BaseManager): ...
shared = {"answer": 42}
Manager.register("shared", lambda: shared)

def make():
    return Manager("mem://managed", authkey=b"key", serializer=UMBEL)

server = make().get_server()
threading.Thread(target=server.serve_forever, daemon=True).start()
manager = make()
manager.connect()
proxy = manager.shared()
print(server.address, proxy.get("answer"))
"""

    assert run_python(code).split() == ["mem://managed", "42"]


def test_a_proxy_brings_its_kind_of_connections_along() -> None:
    code = """
import pickle, sys
from multiprocessing import managers

assert "umbel" not in managers.listener_client
print(pickle.loads(bytes.fromhex(sys.argv[1])) in managers.listener_client)
"""

    assert run_python(code, pickle.dumps(UMBEL).hex()) == "True\n"
