"""Channels and choose, after libdill's own scenarios and beyond them."""

from __future__ import annotations

import errno
import gc
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import umbel
from tests.support import at_each_loop_back, calls, lateness, run_python
from umbel import Recv, Send
from umbel._kernel.current import current_hub
from umbel.coroutines.channel import ChannelEnd
from umbel.coroutines.lane import Entry, Queue, settle
from umbel.handle import open_handles

IntChannel = tuple[umbel.ChannelHandle[int], umbel.ChannelHandle[int]]
Channel = tuple[umbel.ChannelHandle[object], umbel.ChannelHandle[object]]


@pytest.fixture
def channel() -> Iterator[Channel]:
    made = umbel.chmake()
    yield made
    for end in made:
        if end in open_handles:
            umbel.hclose(end)


def test_a_receiver_waits_for_a_sender(channel: Channel) -> None:
    got: list[object] = []

    with umbel.go(lambda: got.append(umbel.chrecv(channel[1]))):
        assert got == []
        umbel.chsend(channel[0], 555)

    assert got == [555]


def test_a_sender_waits_for_a_receiver(channel: Channel) -> None:
    order: list[object] = []

    def send() -> None:
        umbel.chsend(channel[0], 444)
        order.append("sent")

    with umbel.go(send):
        assert order == []
        order.append(umbel.chrecv(channel[1]))

    assert order == [444, "sent"]


def test_both_directions_are_apart(channel: Channel) -> None:
    left, right = channel
    got: list[object] = []

    def other() -> None:
        got.append(umbel.chrecv(right))
        umbel.chsend(right, "answer")

    with umbel.go(other):
        umbel.chsend(left, "question")
        got.append(umbel.chrecv(left))

    assert got == ["question", "answer"]


def test_an_end_does_not_receive_what_it_sent(channel: Channel) -> None:
    with umbel.go(umbel.chsend, channel[0], 1):
        with pytest.raises(umbel.DeadlineError):
            umbel.chrecv(channel[0], 0)
        assert umbel.chrecv(channel[1], 0) == 1


def test_waiting_senders_are_served_in_order(channel: Channel) -> None:
    with umbel.bundle() as sending:
        for value in (888, 999, 777):
            sending.go(umbel.chsend, channel[0], value)

        assert [umbel.chrecv(channel[1]) for _ in range(3)] == [888, 999, 777]


def test_waiting_receivers_are_served_in_order(channel: Channel) -> None:
    got: list[tuple[int, object]] = []

    def receive(i: int) -> None:
        got.append((i, umbel.chrecv(channel[1])))

    with umbel.bundle() as receiving:
        for i in range(3):
            receiving.go(receive, i)
        for value in (333, 444, 555):
            umbel.chsend(channel[0], value)

    assert got == [(0, 333), (1, 444), (2, 555)]


def test_any_object_passes_as_it_is(channel: Channel) -> None:
    for value in (None, [], object(), umbel.bundle):
        with umbel.go(umbel.chsend, channel[0], value):
            assert umbel.chrecv(channel[1]) is value


@pytest.mark.parametrize("deadline", [0, 1], ids=["0", "long ago"])
def test_without_a_partner_a_deadline_in_the_past_is_etimedout(
    channel: Channel, deadline: int
) -> None:
    with pytest.raises(umbel.DeadlineError):
        umbel.chsend(channel[0], 1, deadline)
    with pytest.raises(umbel.DeadlineError):
        umbel.chrecv(channel[0], deadline)


def test_with_a_partner_a_deadline_in_the_past_succeeds(channel: Channel) -> None:
    with umbel.go(umbel.chrecv, channel[1]):
        umbel.chsend(channel[0], 1, 0)
    with umbel.go(umbel.chsend, channel[1], 2):
        assert umbel.chrecv(channel[0], 0) == 2


def test_waiting_ends_at_the_deadline(channel: Channel) -> None:
    assert lateness(lambda until: umbel.chrecv(channel[0], until)) <= 20
    assert lateness(lambda until: umbel.chsend(channel[0], 1, until)) <= 20


def test_a_send_that_was_too_late_sends_nothing(channel: Channel) -> None:
    with pytest.raises(umbel.DeadlineError):
        umbel.chsend(channel[0], "late", 0)

    with pytest.raises(umbel.DeadlineError):
        umbel.chrecv(channel[1], 0)


def test_after_done_the_other_end_gets_epipe_and_we_cannot_send(
    channel: Channel,
) -> None:
    umbel.chdone(channel[0])

    for call in calls(
        lambda: umbel.chrecv(channel[1]),
        lambda: umbel.chrecv(channel[1], 0),
        lambda: umbel.chsend(channel[0], 1),
        lambda: umbel.chdone(channel[0]),
    ):
        with pytest.raises(umbel.EndOfStreamError) as caught:
            call()
        assert caught.value.errno == errno.EPIPE


def test_after_done_the_opposite_direction_goes_on(channel: Channel) -> None:
    umbel.chdone(channel[0])

    with umbel.go(umbel.chsend, channel[1], "still"):
        assert umbel.chrecv(channel[0]) == "still"


def test_done_wakes_all_who_wait_in_that_direction(channel: Channel) -> None:
    caught: list[int | None] = []

    def receive() -> None:
        with pytest.raises(umbel.EndOfStreamError) as error:
            umbel.chrecv(channel[1])
        caught.append(error.value.errno)

    with umbel.bundle() as receiving:
        receiving.go(receive)
        receiving.go(receive)
        umbel.chdone(channel[0])

    assert caught == [errno.EPIPE] * 2


def test_done_wakes_our_own_blocked_sender(channel: Channel) -> None:
    def send() -> None:
        with pytest.raises(umbel.EndOfStreamError):
            umbel.chsend(channel[0], 1)

    with umbel.go(send):
        umbel.chdone(channel[0])


def test_closing_an_end_wakes_its_users_with_ebadf(channel: Channel) -> None:
    caught: list[int | None] = []

    def use(call: object) -> None:
        with pytest.raises(umbel.BadHandleError) as error:
            call()  # type: ignore[operator]
        caught.append(error.value.errno)

    with umbel.bundle() as using:
        using.go(use, lambda: umbel.chrecv(channel[0]))
        using.go(use, lambda: umbel.chsend(channel[0], 1))
        umbel.hclose(channel[0])

    assert caught == [errno.EBADF] * 2


def test_closing_an_end_wakes_the_peer_with_epipe(channel: Channel) -> None:
    caught: list[int | None] = []

    def use(call: object) -> None:
        with pytest.raises(umbel.EndOfStreamError) as error:
            call()  # type: ignore[operator]
        caught.append(error.value.errno)

    with umbel.bundle() as using:
        using.go(use, lambda: umbel.chrecv(channel[0]))
        using.go(use, lambda: umbel.chsend(channel[0], 1))
        umbel.hclose(channel[1])

    assert caught == [errno.EPIPE] * 2
    with pytest.raises(umbel.EndOfStreamError):
        umbel.chsend(channel[0], 1)


def test_a_closed_end_is_ebadf_and_another_handle_enotsup(channel: Channel) -> None:
    bundle = umbel.bundle()
    umbel.hclose(channel[0])

    for call in calls(
        lambda: umbel.chsend(channel[0], 1),
        lambda: umbel.chrecv(channel[0]),
        lambda: umbel.chdone(channel[0]),
        lambda: umbel.choose([Recv(channel[0])]),
    ):
        with pytest.raises(umbel.BadHandleError):
            call()
    for call in calls(
        lambda: umbel.chsend(bundle, 1),  # type: ignore[arg-type]
        lambda: umbel.chrecv(bundle),  # type: ignore[arg-type]
        lambda: umbel.chdone(bundle),  # type: ignore[arg-type]
    ):
        with pytest.raises(umbel.NotSupportedError, match="not a channel"):
            call()
    umbel.hclose(bundle)


def test_a_channel_is_iterated_to_its_end() -> None:
    left, right = umbel.chmake(int)

    def send() -> None:
        with left:
            for value in range(5):
                left.send(value)
            left.done()

    with right, umbel.go(send):
        assert sum(right) == 10
        with pytest.raises(umbel.EndOfStreamError):
            right.receive()


def test_a_canceled_receive_takes_no_value(channel: Channel) -> None:
    umbel.hclose(umbel.go(umbel.chrecv, channel[1]))

    with pytest.raises(umbel.DeadlineError):
        umbel.chsend(channel[0], 1, 0)


def test_a_value_that_arrives_as_the_receiver_is_canceled_is_not_lost(
    channel: Channel,
) -> None:
    got: list[object] = []

    def receive() -> None:
        got.append(umbel.chrecv(channel[1]))
        umbel.msleep(-1)  # it is here that it is canceled
        got.append("too far")

    receiving = umbel.go(receive)
    umbel.chsend(channel[0], "value")  # it is ready to go on ...
    umbel.hclose(receiving)  # ... and is canceled first

    assert got == ["value"]


def test_a_value_that_arrives_with_the_deadline_is_not_lost(
    channel: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = current_hub()
    time_now = [umbel.now()]
    monkeypatch.setattr(hub, "clock", lambda: time_now[0])
    got: list[object] = []

    with umbel.go(lambda: got.append(umbel.chrecv(channel[1], time_now[0] + 10))):
        umbel.chsend(channel[0], "value")
        time_now[0] += 1000  # due before it runs again

    assert got == ["value"]


@pytest.mark.parametrize("what", ["value", "done", "closed"])
def test_what_comes_just_after_the_deadline_but_before_it_is_noticed_counts(
    channel: Channel, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    hub = current_hub()
    time_now = [umbel.now()]
    monkeypatch.setattr(hub, "clock", lambda: time_now[0])
    got: list[object] = []

    def receive() -> None:
        try:
            got.append(umbel.chrecv(channel[1], time_now[0] + 10))
        except umbel.UmbelError as error:
            got.append(error.errno)

    with umbel.go(receive) as receiving:
        time_now[0] += 1000
        with pytest.raises(umbel.DeadlineError):
            umbel.bundle_wait(receiving, 0)  # its timer is taken in, but it has not run
        if what == "value":
            umbel.chsend(channel[0], "value")
        elif what == "done":
            umbel.chdone(channel[0])
        else:
            umbel.hclose(channel[1])

    assert got == [{"value": "value", "done": errno.EPIPE, "closed": errno.EBADF}[what]]


def test_another_thread_is_told_to_start_a_coroutine_here(
    channel: Channel, threads: ThreadPoolExecutor
) -> None:
    outcome = threads.submit(umbel.chrecv, channel[0], 0).exception(20)

    assert isinstance(outcome, umbel.NotSupportedError)
    assert "bundle_go_threadsafe" in str(outcome)


def test_an_end_can_be_closed_from_another_thread(channel: Channel) -> None:
    caught: list[int | None] = []

    def receive() -> None:
        with pytest.raises(umbel.EndOfStreamError) as error:
            umbel.chrecv(channel[0])
        caught.append(error.value.errno)

    with umbel.go(receive):
        closer = threading.Thread(target=umbel.hclose, args=(channel[1],))
        closer.start()

    closer.join()
    assert caught == [errno.EPIPE]


# Choose.


def test_choose_does_the_first_clause_that_can_go() -> None:
    a, b, c = umbel.chmake(str), umbel.chmake(str), umbel.chmake(str)

    with umbel.bundle() as sending:
        sending.go(umbel.chsend, b[0], "b")
        sending.go(umbel.chsend, c[0], "c")
        clauses = [Recv(a[1]), Recv(b[1]), Recv(c[1])]
        assert umbel.choose(clauses) == (1, "b")
        assert umbel.choose(clauses, 0) == (2, "c")
        with pytest.raises(umbel.DeadlineError):
            umbel.choose(clauses, 0)

    for end in (*a, *b, *c):
        umbel.hclose(end)


def test_choose_sends_to_who_waits(channel: Channel) -> None:
    got: list[object] = []

    with umbel.go(lambda: got.append(umbel.chrecv(channel[1]))):
        assert umbel.choose([Recv(channel[0]), Send(channel[0], 5)], 0) == (1, None)

    assert got == [5]


def test_a_waiting_choose_is_settled_by_one_partner_only() -> None:
    a, b = umbel.chmake(int), umbel.chmake(int)
    got: list[object] = []

    with umbel.go(lambda: got.append(umbel.choose([Recv(a[1]), Recv(b[1])]))):
        umbel.chsend(b[0], 7)
        with pytest.raises(umbel.DeadlineError):
            umbel.chsend(a[0], 8, 0)

    assert got == [(1, 7)]
    for end in (*a, *b):
        umbel.hclose(end)


def test_a_waiting_choose_sends_the_value_of_the_clause_that_goes() -> None:
    a, b = umbel.chmake(int), umbel.chmake(int)
    got: list[object] = []

    with umbel.go(lambda: got.append(umbel.choose([Send(a[0], 1), Send(b[0], 2)]))):
        assert umbel.chrecv(b[1]) == 2
        with pytest.raises(umbel.DeadlineError):
            umbel.chrecv(a[1], 0)

    assert got == [(1, None)]
    for end in (*a, *b):
        umbel.hclose(end)


def test_two_chooses_meet(channel: Channel) -> None:
    got: list[tuple[int, object]] = []

    with umbel.go(
        lambda: got.append(umbel.choose([Recv(channel[0]), Send(channel[0], "x")]))
    ):
        got.append(umbel.choose([Recv(channel[1])]))

    assert got == [(0, "x"), (1, None)]


def test_choose_without_clauses_sleeps_until_its_deadline() -> None:
    assert lateness(lambda until: umbel.choose([], until)) <= 20


def test_choose_ends_at_its_deadline(channel: Channel) -> None:
    assert lateness(lambda until: umbel.choose([Recv(channel[0])], until)) <= 20


def test_an_error_names_its_clause_by_index() -> None:
    a, b, ended = umbel.chmake(int), umbel.chmake(int), umbel.chmake(int)
    umbel.hclose(b[0])
    umbel.chdone(ended[0])
    bundle = umbel.bundle()

    for clause, kind in (
        (Recv(b[0]), umbel.BadHandleError),
        (Recv(ended[1]), umbel.EndOfStreamError),
        (Send(ended[0], 1), umbel.EndOfStreamError),
        (Recv(bundle), umbel.NotSupportedError),  # type: ignore[arg-type]
    ):
        with pytest.raises(kind) as caught:
            umbel.choose([Recv(a[1]), clause])
        assert isinstance(caught.value, umbel.UmbelError)
        assert caught.value.clause == 1

    for handle in (*a, b[1], *ended, bundle):
        umbel.hclose(handle)


@pytest.mark.parametrize("is_waiting", [True, False])
def test_the_end_of_a_channel_is_told_in_words_of_channels(is_waiting: bool) -> None:
    told: list[str | None] = []

    def receive(handle: umbel.ChannelHandle[int]) -> None:
        with pytest.raises(umbel.EndOfStreamError) as caught:
            umbel.chrecv(handle)
        told.append(caught.value.strerror)

    def choose(handle: umbel.ChannelHandle[int]) -> None:
        with pytest.raises(umbel.EndOfStreamError) as caught:
            umbel.choose([Recv(handle)])
        told.append(caught.value.strerror)

    for wait in (receive, choose):
        left, right = umbel.chmake(int)
        if not is_waiting:
            umbel.hclose(left)
        with umbel.go(wait, right):
            if is_waiting:
                umbel.hclose(left)
        umbel.hclose(right)

    assert told == ["the other end has ended its direction: nothing will come"] * 2


@pytest.mark.parametrize(
    ("end", "kind"),
    [
        (lambda c: umbel.chdone(c[0]), umbel.EndOfStreamError),
        (lambda c: umbel.hclose(c[0]), umbel.EndOfStreamError),
        (lambda c: umbel.hclose(c[1]), umbel.BadHandleError),
    ],
    ids=["done", "peer closed", "closed"],
)
def test_an_error_that_comes_while_waiting_names_its_clause(
    end: Callable[[IntChannel], None], kind: type[umbel.UmbelError]
) -> None:
    quiet, other = umbel.chmake(int), umbel.chmake(int)
    caught: list[int | None] = []

    def wait() -> None:
        with pytest.raises(kind) as error:
            umbel.choose([Recv(quiet[1]), Recv(other[1])])
        caught.append(error.value.clause)

    with umbel.go(wait):
        end(other)

    assert caught == [1]
    with pytest.raises(umbel.DeadlineError):
        umbel.chsend(quiet[0], 1, 0)  # nobody waits there any more
    for handle in (*quiet, *other):
        if handle in open_handles:
            umbel.hclose(handle)


def test_a_canceled_choose_waits_nowhere(channel: Channel) -> None:
    umbel.hclose(
        umbel.go(lambda: umbel.choose([Recv(channel[1]), Send(channel[1], 1)]))
    )

    with pytest.raises(umbel.DeadlineError):
        umbel.chsend(channel[0], 1, 0)
    with pytest.raises(umbel.DeadlineError):
        umbel.chrecv(channel[0], 0)


def test_choosing_for_long_beside_a_quiet_channel_takes_no_memory() -> None:
    quiet, busy = umbel.chmake(int), umbel.chmake(int)

    def send() -> None:
        for value in range(5000):
            umbel.chsend(busy[0], value)

    with umbel.go(send):
        for value in range(5000):
            assert umbel.choose([Recv(quiet[1]), Recv(busy[1])]) == (1, value)

    end = open_handles[quiet[1]]
    assert isinstance(end, ChannelEnd)
    assert len(end.inbound.receivers) < 500
    for handle in (*quiet, *busy):
        umbel.hclose(handle)


def test_nor_does_a_choice_that_fails() -> None:
    quiet = umbel.chmake(int)

    for _ in range(500):
        near, far = umbel.chmake(int)
        choosing = umbel.go(umbel.choose, [Recv(quiet[1]), Recv(near)])
        umbel.hclose(far)
        with pytest.raises(ExceptionGroup):
            umbel.hclose(choosing)
        umbel.hclose(near)

    end = open_handles[quiet[1]]
    assert isinstance(end, ChannelEnd)
    assert len(end.inbound.receivers) < 200
    for handle in quiet:
        umbel.hclose(handle)


def test_a_forgotten_channel_is_told_of_and_closed() -> None:
    def forget() -> None:
        umbel.chmake()

        gc.collect()

    with pytest.warns(ResourceWarning, match="channel"):
        forget()


def test_thousands_blocked_on_anything_are_killed_at_once() -> None:
    left, right = umbel.chmake(int)
    listener = umbel.listen("mem://quiet")
    streams = umbel.ipc_pair()
    ended: list[int] = []

    def wait(i: int) -> None:
        try:
            if i % 3 == 0:
                umbel.chrecv(right)
            elif i % 3 == 1:
                umbel.msleep(umbel.within(3600))
            else:
                umbel.choose([Recv(right), Send(left, 1)], umbel.within(3600))
        finally:
            ended.append(i)

    b = umbel.bundle()
    b.go(umbel.accept, listener)
    b.go(umbel.receive, streams[0])
    for i in range(10_000):
        # a choice that sends meets those that receive: keep to one kind
        b.go(wait, i - i % 3 if i % 3 == 2 else i)
    start = umbel.now()
    umbel.hclose(b)
    took = umbel.now() - start

    assert len(ended) == 10_000
    assert took < 3000
    for handle in (left, right, listener, *streams):
        umbel.hclose(handle)


class ChannelMachine(RuleBasedStateMachine):
    """One direction of a channel against a list of who waits."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = umbel.chmake(int)
        self.senders: deque[int] = deque()
        self.receivers: deque[int] = deque()
        self.received: dict[int, int | None] = {}
        self.expected: dict[int, int | None] = {}
        self.running: dict[int, umbel.BundleHandle] = {}
        self.count = 0

    def _send(self, value: int) -> None:
        umbel.chsend(self.left, value)

    def _receive(self, number: int, by_choice: bool) -> None:
        if by_choice:
            self.received[number] = umbel.choose([Recv(self.right)])[1]
        else:
            self.received[number] = umbel.chrecv(self.right)

    def _start(self, call: object, *arguments: object) -> int:
        self.count += 1
        self.running[self.count] = umbel.go(call, *arguments)  # type: ignore[arg-type]
        umbel.yield_()
        return self.count

    @rule()
    def send(self) -> None:
        value = self.count + 1
        number = self._start(self._send, value)
        if self.receivers:
            self.expected[self.receivers.popleft()] = value
        else:
            self.senders.append(number)

    @rule(by_choice=st.booleans())
    def receive(self, by_choice: bool) -> None:
        number = self.count + 1
        self._start(self._receive, number, by_choice)
        if self.senders:
            self.expected[number] = self.senders.popleft()
        else:
            self.receivers.append(number)

    @precondition(lambda self: self.senders or self.receivers)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        waiting = self.senders or self.receivers
        number = data.draw(st.sampled_from(list(waiting)))
        waiting.remove(number)
        umbel.hclose(self.running.pop(number))

    @invariant()
    def what_arrived_is_what_the_model_says(self) -> None:
        umbel.yield_()
        assert self.received == self.expected

    def teardown(self) -> None:
        for handle in self.running.values():
            umbel.hclose(handle)
        umbel.hclose(self.left)
        umbel.hclose(self.right)


TestChannelMachine = ChannelMachine.TestCase
TestChannelMachine.settings = settings(max_examples=40, deadline=None)


@pytest.mark.parametrize("way", ["chrecv", "chsend", "choose"])
def test_an_end_told_to_who_is_canceled_already_is_no_value(
    channel: Channel, way: str
) -> None:
    ours, theirs = channel
    got: list[object] = []

    def end() -> None:
        try:
            umbel.msleep(-1)
        finally:
            umbel.hclose(theirs)

    def wait() -> None:
        got.append("begun")
        if way == "chsend":
            umbel.chsend(ours, "value")
        elif way == "chrecv":
            got.append(umbel.chrecv(ours))
        else:
            got.append(umbel.choose([umbel.Recv(ours)]))
        got.append("gone on")

    both = umbel.bundle()
    both.go(end)
    both.go(wait)
    umbel.hclose(both)  # both are awake, and the first ends what the second waits for

    assert got == ["begun"]


def test_an_end_told_to_who_was_woken_for_no_reason_is_no_value(
    channel: Channel,
) -> None:
    ours, theirs = channel

    def end() -> None:
        umbel.yield_()
        current_hub().unpark(current_hub().main)  # a wait may end for no reason
        umbel.hclose(theirs)

    with umbel.go(end), pytest.raises(umbel.EndOfStreamError):
        umbel.chrecv(ours)


def test_done_is_done_once_though_the_other_end_was_closed(channel: Channel) -> None:
    umbel.hclose(channel[1])

    umbel.chdone(channel[0])
    with pytest.raises(umbel.EndOfStreamError):
        umbel.chdone(channel[0])


def test_a_channel_of_the_parents_says_so_in_a_forked_child() -> None:
    code = """
import os, umbel
end, other = umbel.chmake()
if os.fork() == 0:
    try:
        umbel.chrecv(end, 0)
    except umbel.NotSupportedError as error:
        print("before the fork" in str(error), flush=True)
    os._exit(0)
os.wait()
umbel.hclose(end)
umbel.hclose(other)
"""
    assert run_python(code) == "True\n"


@pytest.mark.parametrize("verb", ["chsend", "chrecv", "choose"])
def test_an_end_that_is_told_keeps_nothing_of_who_waited(verb: str) -> None:
    class Local:
        pass

    kept: list[weakref.ref[Local]] = []
    near, far = umbel.chmake()

    def wait() -> None:
        local = Local()
        kept.append(weakref.ref(local))
        with suppress(umbel.EndOfStreamError):
            if verb == "chsend":
                umbel.chsend(near, 1)
            elif verb == "chrecv":
                umbel.chrecv(near)
            else:
                umbel.choose([Recv(near)])

    gc.disable()
    try:
        with umbel.go(wait):
            umbel.hclose(far)
        assert kept[0]() is None
    finally:
        gc.enable()
    umbel.hclose(near)


def test_a_handler_as_a_loop_goes_back_leaves_a_queue_in_order(
    channel: Channel,
) -> None:
    near, far = channel
    for _ in range(2):  # who has given up stands in the queue still
        with suppress(umbel.DeadlineError), umbel.go(umbel.chrecv, far):
            umbel.chrecv(far, umbel.within(0.001))

    def handler() -> None:
        with suppress(umbel.DeadlineError):
            umbel.chsend(near, 1, 0)

    with (
        at_each_loop_back(Queue.take.__code__, handler),
        pytest.raises(umbel.DeadlineError),
    ):
        umbel.chsend(near, 2, 0)


def test_who_is_chosen_by_a_handler_is_chosen_by_nobody_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (first, first_end), (second, second_end) = umbel.chmake(), umbel.chmake()
    chosen: list[tuple[int, object]] = []

    def settle_late(entry: Entry, result: object) -> object:
        monkeypatch.undo()
        umbel.chsend(second, "a handler's", 0)
        return settle(entry, result)

    monkeypatch.setattr("umbel.coroutines.choice.settle", settle_late)
    clauses = [Recv(first_end), Recv(second_end)]
    with (
        umbel.go(lambda: chosen.append(umbel.choose(clauses))),
        pytest.raises(umbel.DeadlineError),
    ):
        umbel.choose([Send(first, "lost")], 0)

    assert chosen == [(1, "a handler's")]
    for end in (first, first_end, second, second_end):
        umbel.hclose(end)


class Large:
    """Something that should not be kept in memory."""


def test_a_value_that_was_not_sent_in_time_is_kept_no_longer() -> None:
    channel, other = umbel.chmake()
    kept: list[weakref.ref[Large]] = []

    def offer(*, by_choose: bool) -> None:
        value = Large()
        kept.append(weakref.ref(value))
        with suppress(umbel.DeadlineError):
            if by_choose:
                umbel.choose([umbel.Send(channel, value)], umbel.within(0.002))
            else:
                umbel.chsend(channel, value, umbel.within(0.002))

    with umbel.bundle() as offering:
        for number in range(10):
            offering.go(offer, by_choose=number % 2 == 0)

    assert [reference() for reference in kept] == [None] * 10
    umbel.hclose(channel)
    umbel.hclose(other)
