"""One program, one address, four runtimes: threads, coroutines, asyncio and trio.

    python examples/four_runtimes.py                    # mem://four
    python examples/four_runtimes.py ipc:/tmp/four.sock

A server of umbel's coroutines answers clients of all four at once. Each client gets the
same answers, and the same error when none comes.
"""

import asyncio
import sys
from collections.abc import Callable
from importlib.util import find_spec

import umbel
from umbel import aio

QUESTIONS = (b"one", b"two", b"three")
PATIENCE = 10.0

Told = list[str]


def answer(stream: umbel.StreamHandle) -> None:
    while size := umbel.receive(stream, 1):
        word = umbel.brecv(stream, size[0])
        umbel.bsendl(stream, [size, word.upper()])


# A client in blocking style, which is for threads and coroutines alike.


def ask(address: umbel.Address) -> Told:
    told: Told = []
    with umbel.connect(address, umbel.within(PATIENCE)) as stream:
        for question in QUESTIONS:
            umbel.bsendl(stream, [bytes([len(question)]), question])
            size = umbel.brecv(stream, 1, umbel.within(PATIENCE))
            told.append(umbel.brecv(stream, size[0]).decode())
        try:
            umbel.receive(stream, 1, umbel.within(0.01))
        except TimeoutError as error:
            told.append(type(error).__name__)
    return told


def ask_in_coroutines(address: umbel.Address) -> Told:
    told: list[Told] = []
    with umbel.bundle() as asking:
        for _ in range(3):
            asking.go(lambda: told.append(ask(address)))
        asking.wait()
    assert told[0] == told[1] == told[2]
    return told[0]


# The same, awaited: this one is for asyncio and trio alike.


async def ask_awaiting(address: umbel.Address) -> Told:
    told: Told = []
    async with await aio.connect(address, umbel.within(PATIENCE)) as stream:
        for question in QUESTIONS:
            await aio.bsendl(stream, [bytes([len(question)]), question])
            size = await aio.brecv(stream, 1, umbel.within(PATIENCE))
            told.append((await aio.brecv(stream, size[0])).decode())
        try:
            await aio.receive(stream, 1, umbel.within(0.01))
        except TimeoutError as error:
            told.append(type(error).__name__)
    return told


def ask_in_asyncio(address: umbel.Address) -> Told:
    return asyncio.run(ask_awaiting(address))


def ask_in_trio(address: umbel.Address) -> Told:
    import trio

    return trio.run(ask_awaiting, address)


CLIENTS: dict[str, Callable[[umbel.Address], Told]] = {
    "threads": ask,
    "coroutines": ask_in_coroutines,
    "asyncio": ask_in_asyncio,
}
if find_spec("trio"):
    CLIENTS["trio"] = ask_in_trio


def ask_all(address: umbel.Address) -> dict[str, Told]:
    """Let all clients ask at once, each in a thread of its own."""
    told: dict[str, Told] = {}

    def run(name: str) -> None:
        told[name] = umbel.to_thread(lambda: CLIENTS[name](address))

    with umbel.bundle() as running:
        for name in CLIENTS:
            running.go(run, name)
        running.wait(umbel.within(PATIENCE))
    return told


def main(address: str) -> None:
    listener = umbel.listen(address)
    where = listener.address
    with umbel.go(umbel.serve, listener, answer) as serving:
        told = ask_all(where)
        umbel.hclose(listener)
        serving.wait(umbel.within(PATIENCE))
    for name in CLIENTS:
        print(f"{name:<10} {' '.join(told[name])}")
    assert all(found == told["threads"] for found in told.values())


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "mem://four")
