"""The handle table: numbers, ownership, kinds, and forgotten handles."""

from __future__ import annotations

import _thread
import copy
import errno
import gc
import pickle
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings, strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, rule

import umbel
from tests.support import Ends, calls, open_descriptors, python, wait_until
from umbel.handle import open_handles, where_opened


class Thing:
    """What a user might give a handle."""

    def __init__(self) -> None:
        self.closed = 0

    def query(self, kind: type[object]) -> object:
        return self if kind is Thing else None

    def close(self) -> None:
        self.closed += 1


def make() -> umbel.Handle:
    return umbel.hmake(Thing())  # type: ignore[arg-type]  # looser than the protocol


def test_an_object_of_ones_own_gets_a_handle() -> None:
    thing = Thing()

    handle = umbel.hmake(thing)  # type: ignore[arg-type]

    assert umbel.hquery(handle, Thing) is thing
    umbel.hclose(handle)
    assert thing.closed == 1


def test_what_lacks_query_or_close_gets_none() -> None:
    with pytest.raises(TypeError, match="query"):
        umbel.hmake(object())  # type: ignore[arg-type]


def test_hquery_of_something_else_is_enotsup() -> None:
    handle = make()

    with pytest.raises(umbel.NotSupportedError, match="PeerIdentity") as caught:
        umbel.hquery(handle, umbel.PeerIdentity)

    assert caught.value.errno == errno.ENOTSUP
    umbel.hclose(handle)


def test_the_generic_close_works_on_any_handle() -> None:
    thing = Thing()

    report = umbel.close(umbel.hmake(thing), 0)  # type: ignore[arg-type]

    assert report == umbel.CloseReport(None, 0)
    assert thing.closed == 1


def test_blocking_in_a_close_is_forbidden() -> None:
    caught = []

    class Blocking(Thing):
        def close(self) -> None:
            try:
                umbel.msleep(-1)
            except umbel.Canceled as error:
                caught.append((error.errno, str(error)))

    umbel.hclose(umbel.hmake(Blocking()))  # type: ignore[arg-type]
    umbel.msleep(0)  # and only in it

    assert caught == [(errno.ECANCELED, "blocking calls are forbidden here")]


def test_a_close_that_raises_still_closes() -> None:
    class Failing(Thing):
        def close(self) -> None:
            raise ZeroDivisionError

    handle = umbel.hmake(Failing())  # type: ignore[arg-type]
    with pytest.raises(ZeroDivisionError):
        umbel.hclose(handle)

    with pytest.raises(umbel.BadHandleError):
        umbel.hclose(handle)


def test_numbers_are_never_used_again() -> None:
    numbers = []
    for _ in range(100):
        handle = make()
        numbers.append(int(handle))
        umbel.hclose(handle)

    assert len(set(numbers)) == 100
    assert numbers == sorted(numbers)


def test_hown_moves_the_object_to_a_new_number(ends: Ends) -> None:
    left, right = ends

    moved = umbel.hown(left)

    assert type(moved) is umbel.StreamHandle
    assert moved != left
    with pytest.raises(umbel.BadHandleError, match="hown"):
        umbel.bsend(left, b"x")
    umbel.bsend(moved, b"x")
    assert umbel.brecv(right, 1) == b"x"
    umbel.hclose(moved)


def test_a_moved_handle_still_tells_where_it_was_opened(ends: Ends) -> None:
    before = sorted(found.opened for found in umbel.census().handles)

    moved = umbel.hown(ends[0])

    assert sorted(found.opened for found in umbel.census().handles) == before
    umbel.hclose(moved)


def test_forgetting_the_old_handle_of_a_moved_object_closes_nothing(
    ends: Ends,
) -> None:
    left, right = umbel.ipc_pair()

    left = umbel.hown(left)
    gc.collect()

    umbel.bsend(left, b"x")
    assert umbel.brecv(right, 1) == b"x"
    umbel.hclose(left)
    umbel.hclose(right)


def test_a_plain_number_names_the_object_too(ends: Ends) -> None:
    number = int(ends[0])

    umbel.bsend(number, b"x")  # type: ignore[arg-type]
    moved = umbel.hown(umbel.hown(number))

    assert umbel.brecv(ends[1], 1) == b"x"
    assert type(moved) is umbel.StreamHandle
    umbel.hclose(moved)


@pytest.mark.parametrize("number", [0, -1, 10**9])
def test_a_number_that_never_was_is_ebadf(number: int) -> None:
    with pytest.raises(umbel.BadHandleError, match=str(number)) as caught:
        umbel.hclose(number)

    assert caught.value.errno == errno.EBADF


@pytest.mark.parametrize("wrong", ["5", 5.5, None], ids=["str", "float", "None"])
def test_what_is_no_number_is_a_type_error(wrong: object) -> None:
    for call in calls(
        lambda: umbel.hclose(wrong),  # type: ignore[arg-type]
        lambda: umbel.close(wrong),  # type: ignore[arg-type]
        lambda: umbel.hquery(wrong, Thing),  # type: ignore[arg-type]
        lambda: umbel.bsend(wrong, b""),  # type: ignore[arg-type]
        lambda: umbel.accept(wrong),  # type: ignore[arg-type]
        lambda: umbel.bundle_wait(wrong),  # type: ignore[arg-type]
        lambda: umbel.ipc_close(wrong),  # type: ignore[arg-type]
    ):
        with pytest.raises(TypeError, match="int"):
            call()


def test_a_handle_of_another_kind_is_enotsup_and_unharmed(ends: Ends) -> None:
    stream, bundle, own = ends[0], umbel.bundle(), make()

    for call in calls(
        lambda: umbel.bsend(bundle, b""),  # type: ignore[arg-type]
        lambda: umbel.brecv(bundle, 1),  # type: ignore[call-overload]
        lambda: umbel.receive(own),  # type: ignore[arg-type]
        lambda: umbel.done(own),  # type: ignore[arg-type]
        lambda: umbel.accept(stream),  # type: ignore[arg-type]
        lambda: umbel.bundle_wait(stream),  # type: ignore[arg-type]
        lambda: umbel.bundle_go(own, print),  # type: ignore[arg-type]
        lambda: umbel.ipc_close(bundle),  # type: ignore[arg-type]
        lambda: umbel.ipc_close(own),  # type: ignore[arg-type]
        lambda: umbel.ipc_done(own),  # type: ignore[arg-type]
        lambda: umbel.ipc_accept(stream),  # type: ignore[arg-type]
        lambda: umbel.ipc_recvfd(bundle),  # type: ignore[arg-type]
    ):
        with pytest.raises(umbel.NotSupportedError) as caught:
            call()
        assert caught.value.errno == errno.ENOTSUP

    umbel.hclose(bundle)
    umbel.hclose(own)
    umbel.bsend(stream, b"x")


def test_a_message_about_the_wrong_kind_says_what_to_use(ends: Ends) -> None:
    with pytest.raises(umbel.NotSupportedError, match="bsend, brecv, receive"):
        umbel.accept(ends[0])  # type: ignore[arg-type]


def test_a_forgotten_handle_is_told_of_with_its_place_and_closed() -> None:
    def forget() -> int:
        left, right = umbel.ipc_pair()
        umbel.hclose(right)
        return int(left)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        number = forget()
        gc.collect()

    (warning,) = caught
    assert warning.category is ResourceWarning
    line = forget.__code__.co_firstlineno + 1
    assert f"{__file__}:{line}" in str(warning.message)
    assert str(number) in str(warning.message)
    assert number not in open_handles


def test_a_forgotten_bundle_is_told_of() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        umbel.bundle()
        gc.collect()

    assert [w.category for w in caught] == [ResourceWarning]
    assert "bundle" in str(caught[0].message)


def test_a_handle_that_is_all_a_coroutine_does_is_from_where_that_was_started() -> None:
    with umbel.listen("mem://started") as listener:
        client = umbel.connect(listener.address)
        serving = umbel.go(umbel.serve, listener, umbel.receive)
        line = sys._getframe().f_lineno - 1
        umbel.yield_()

        # The stream that it has accepted, and the bundle of its handlers.
        others = set(open_handles) - {listener, client, serving}
        places = {where_opened(open_handles[handle]) for handle in others}

        assert len(others) == 2
        assert places == {f"{__file__}:{line}"}
        umbel.hclose(client)
        umbel.hclose(serving)


def test_a_handle_that_is_all_a_thread_does_is_from_an_unknown_place() -> None:
    before = open_descriptors()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        begin: Callable[[Thing], object] = umbel.hmake  # type: ignore[assignment]
        _thread.start_new_thread(begin, (Thing(),))
        wait_until(lambda: caught)
        wait_until(lambda: open_descriptors() == before, "the end of its hub")

    assert "opened at an unknown place" in str(caught[0].message)


def test_a_module_whose_name_only_begins_as_ours_is_the_programs() -> None:
    program = compile("ends += umbel.pair('mem')", "umbel_chat.py", "exec")
    ends: list[umbel.StreamHandle] = []
    exec(program, {"__name__": "umbel_chat", "umbel": umbel, "ends": ends})

    assert {where_opened(open_handles[end]) for end in ends} == {"umbel_chat.py:1"}
    for end in ends:
        umbel.hclose(end)


def test_a_handle_that_was_closed_is_forgotten_in_silence() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for handle in umbel.ipc_pair():
            umbel.hclose(handle)
        del handle
        gc.collect()


@pytest.mark.parametrize("copying", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_handle_is_not_copied(
    ends: Ends, copying: Callable[[object], object]
) -> None:
    with pytest.raises(TypeError, match=r"StreamHandle\(\d+\) can't .*send_handle"):
        copying(ends[0])
    assert copying(int(ends[0]))


def test_a_handle_is_an_int_that_shows_its_kind(ends: Ends) -> None:
    left, _ = ends

    assert isinstance(left, int)
    assert {left: "x"}[int(left)] == "x"  # type: ignore[index]
    assert repr(left) == f"StreamHandle({int(left)})"
    assert f"{left:d}" == str(int(left))


class HandleTable(RuleBasedStateMachine):
    """Whatever is made, moved and closed: the table knows what is open."""

    handles = Bundle("handles")

    def __init__(self) -> None:
        super().__init__()
        self.open: dict[int, Thing] = {}
        self.stale: list[int] = []

    @rule(target=handles)
    def make(self) -> umbel.Handle:
        thing = Thing()
        handle = umbel.hmake(thing)  # type: ignore[arg-type]
        assert int(handle) > max(self.stale, default=0)
        self.open[int(handle)] = thing
        return handle

    @rule(target=handles, handle=consumes(handles))
    def own(self, handle: umbel.Handle) -> umbel.Handle:
        moved = umbel.hown(handle)
        self.open[int(moved)] = self.open.pop(int(handle))
        self.stale.append(int(handle))
        return moved

    @rule(handle=consumes(handles), orderly=st.booleans())
    def close(self, handle: umbel.Handle, orderly: bool) -> None:
        if orderly:
            umbel.close(handle)
        else:
            umbel.hclose(handle)
        assert self.open.pop(int(handle)).closed == 1
        self.stale.append(int(handle))

    @rule(handle=handles)
    def query(self, handle: umbel.Handle) -> None:
        assert umbel.hquery(handle, Thing) is self.open[int(handle)]

    @rule(data=st.data())
    def use_stale(self, data: st.DataObject) -> None:
        if self.stale:
            number = data.draw(st.sampled_from(self.stale))
            with pytest.raises(umbel.BadHandleError):
                umbel.hclose(number)

    def teardown(self) -> None:
        assert set(self.open) == set(open_handles)
        for number, thing in self.open.items():
            assert thing.closed == 0
            umbel.hclose(number)


TestHandleTable = HandleTable.TestCase
TestHandleTable.settings = settings(max_examples=60, deadline=None)


def test_what_is_forgotten_is_closed_though_warnings_are_errors(tmp_path: Path) -> None:
    code = """
import gc, os, sys, warnings
import umbel
warnings.simplefilter("error", ResourceWarning)
kept = [umbel.ipc_listen(f"{sys.argv[1]}/{name}") for name in "abc"]
left, right = umbel.ipc_pair()
del left
gc.collect()
assert umbel.receive(right, 1, umbel.within(10)) == b""
del right
"""
    with python(code, str(tmp_path)) as process:
        _, err = process.communicate(timeout=30)

    assert list(tmp_path.iterdir()) == []
    assert err.count("ResourceWarning: ") == 2 + 3


@pytest.mark.parametrize("error", ["RuntimeError", "SystemExit", "KeyboardInterrupt"])
def test_at_exit_one_that_can_not_be_closed_keeps_no_other_open(
    tmp_path: Path, error: str
) -> None:
    code = f"""
import sys, warnings
import umbel
warnings.simplefilter("ignore", ResourceWarning)
class Stuck:
    def query(self, kind):
        return None
    def close(self):
        print("closing")
        raise {error}("bad close")
kept = [
    umbel.hmake(Stuck()),
    umbel.ipc_listen(f"{{sys.argv[1]}}/x"),
    umbel.hmake(Stuck()),
]
"""
    with python(code, str(tmp_path)) as process:
        out, err = process.communicate(timeout=30)

    assert list(tmp_path.iterdir()) == []
    assert out == "closing\n" * 2
    assert err.count(f"{error}: bad close") == 2
