"""Behaviour 53: the loop's own cancellation of the awaitable verbs."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

import umbel
from umbel import aio
from umbel.testing.conformance.behaviour import HOSTED, behaviour
from umbel.testing.conformance.expecting import equal, require
from umbel.testing.conformance.hosted import HostedTrial
from umbel.testing.conformance.looking import MOST_NOISE, noise, pattern
from umbel.testing.conformance.trial import Trial
from umbel.testing.conformance.waiting import fill_backlog
from umbel.transport import UnreadBytes

#: Calls that a task makes which catches its cancellation and goes on.
STUBBORN: Final = 50
#: Whom an accept that is hammered accepts.
PEERS: Final = 60
#: Seconds after which a task is canceled: before, while and after its call waits.
MOMENTS: Final = (0, 0, 0.0001, 0.001)


@behaviour(
    53, "a loop's own cancellation goes through the verbs, unchanged", drivers=HOSTED
)
def native(t: Trial) -> None:
    """It is no OSError, whoever catches it is canceled again, and no byte is lost."""
    assert isinstance(t, HostedTrial)
    for name, call in _waiting_calls(t).items():
        _is_native(t, name, call)
    _is_no_error(t)
    _goes_on(t)
    _hammer_receive(t)
    if t.subject.can_serve:
        _hammer_accept(t)


def _waiting_calls(t: HostedTrial) -> dict[str, Callable[[], Awaitable[object]]]:
    """Give a call of each verb, which waits for good."""
    unread = t.pair()[0]
    t.bsend(unread, b"x")
    large = noise(MOST_NOISE)
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "receive": partial(aio.receive, t.pair()[0]),
        "brecv": partial(aio.brecv, t.pair()[0], 1),
        "brecvl": partial(aio.brecvl, t.pair()[0], [bytearray(1)]),
        "bsend": partial(aio.bsend, t.pair()[0], large),
        "bsendl": partial(aio.bsendl, t.pair()[0], [large]),
        "close": partial(aio.close, t.pair()[0]),
        "msleep": partial(aio.msleep, umbel.FOREVER),
    }
    if UnreadBytes in t.subject.traits.capabilities:
        calls["flush"] = partial(aio.flush, unread)
    if t.subject.can_serve:
        full = t.listen(1)
        fill_backlog(t, full)
        calls["accept"] = partial(aio.accept, t.listen())
        calls["connect"] = partial(aio.connect, full.address)
    return calls


def _is_native(
    t: HostedTrial, name: str, call: Callable[[], Awaitable[object]]
) -> None:
    job = t.begin(call)
    require(not job.is_over, f"{name} did not wait: {job.is_over and job.result()}")
    job.cancel()
    raised = ""
    try:
        job.result()
    except BaseException as error:  # noqa: BLE001 - this is the test
        raised = type(error).__name__
    equal(raised, t.cancellation.__name__, f"what a canceled {name} raised")
    require(job.was_canceled, f"the task of a canceled {name} did not end as canceled")


def _is_no_error(t: HostedTrial) -> None:
    """A program that goes on after any error ends nevertheless when canceled."""
    left, right = t.pair()

    async def serve() -> None:
        while True:
            try:
                await aio.receive(left)
            except Exception:  # noqa: BLE001 - as careless programs do
                continue

    job = t.begin(serve)
    t.bsend(right, b"x")
    job.cancel()
    require(job.was_canceled, "a loop that goes on after errors outlived cancellation")


def _goes_on(t: HostedTrial) -> None:
    """A task that catches its cancellation and goes on comes to its end.

    In trio each later call is canceled, too, also one that need not wait. In asyncio
    a task is canceled once, and what follows does what it always does.
    """
    left, right = t.pair()
    got = bytearray()
    caught = 0

    async def stubborn() -> None:
        nonlocal caught
        for _ in range(STUBBORN):
            try:
                got.extend(await aio.receive(left, 1))
            except t.cancellation:
                caught += 1
            try:
                await aio.bsend(left, b"y")
            except t.cancellation:
                caught += 1

    job = t.begin(stubborn)
    # The task goes on after both: it is canceled, and all that it asks for is there.
    umbel.bsend(right, bytes(STUBBORN))
    job.cancel()
    require(job.is_over, "a task that catches its cancellation goes on for ever")
    wanted = 2 * STUBBORN if t.is_level_triggered else 1
    # The first receive may have had its byte before: some transports hand it over.
    missed = wanted - caught
    require(
        missed in (0, int(t.is_level_triggered)),
        f"{caught} calls were canceled, of {2 * STUBBORN} in a canceled task",
    )
    rest = t.brecv(left, STUBBORN - len(got))
    equal(bytes(got) + rest, bytes(STUBBORN), "received before and after")
    if not t.is_level_triggered:
        equal(t.brecv(right, STUBBORN), b"y" * STUBBORN, "sent by that task")


def _hammer_receive(t: HostedTrial) -> None:
    """Canceled at random moments, `receive` gives each byte once."""
    left, right = t.pair()
    data = pattern(60_000)
    draw = random.Random(53)
    got = bytearray()

    async def send() -> None:
        draw = random.Random(35)
        at = 0
        while at < len(data):
            size = draw.randrange(1, 400)
            await aio.bsend(right, data[at : at + size])
            at += size
            for _ in range(draw.randrange(3)):
                await t.pass_on()

    async def receive() -> None:
        while len(got) < len(data):
            got.extend(await aio.receive(left, draw.randrange(1, 300)))

    async def hammer() -> None:
        give_up = t.soon()
        while len(got) < len(data):
            require(umbel.now() < give_up, f"{len(data) - len(got)} bytes were lost")
            await t.new_limit(draw.choice(MOMENTS)).cuts_off(receive())

    sending = t.begin(send)
    t.begin(hammer).result()
    sending.result()
    require(got == data, "a receive that the loop canceled lost or doubled bytes")


def _hammer_accept(t: HostedTrial) -> None:
    """Canceled at random moments, `accept` gives each peer once."""
    listener = t.listen()
    draw = random.Random(54)
    accepted: list[umbel.StreamHandle] = []
    clients: list[umbel.StreamHandle] = []

    def connect() -> None:
        for number in range(PEERS):
            client = t.connect(listener)
            umbel.bsend(client, bytes([number]))
            clients.append(client)
            t.pause(number % 3)  # so that there are several now and then

    async def accept() -> None:
        while len(accepted) < PEERS:
            server = aio.as_blocking(await aio.accept(listener))
            accepted.append(t.keep(server))

    async def hammer() -> None:
        give_up = t.soon()
        while len(accepted) < PEERS:
            require(umbel.now() < give_up, "a peer was lost by a canceled accept")
            await t.new_limit(draw.choice(MOMENTS)).cuts_off(accept())

    connecting = t.spawn(connect)
    t.begin(hammer).result()
    connecting.result()
    numbers = [t.brecv(server, 1)[0] for server in accepted]
    equal(numbers, list(range(PEERS)), "peers accepted, by their numbers")
