"""Finding transports and plugins, with distributions that are really installed.

Those that are broken have a file of their own: test_broken_distributions.py.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import umbel
from tests.distributions import (
    TRANSPORTS,
    Distribution,
    install as install_wheels,
    make_wheel,
)
from tests.support import python, run_python
from umbel.plugins import add_plugin, remove_plugin
from umbel.plugins.registry import add_transport, remove_transport
from umbel.spi import (
    CloseContext,
    ListenContext,
    Listener,
    Outcome,
    PairContext,
    Stream,
    Wrapped,
    hookimpl,
)
from umbel_transports.mem import MemTransport

GOOD = """
from umbel.spi import SocketStream, hookimpl
import socket
class Transport:
    @hookimpl
    def umbel_pair(self, context):
        a, b = socket.socketpair()
        return SocketStream(a), SocketStream(b)
transport = Transport()
"""

Install = Callable[..., str]


@pytest.fixture
def install(tmp_path: Path) -> Install:
    """Give a function that makes a wheel and has pip install it; gives the folder."""

    def install(name: str, scheme: str, code: str, group: str = TRANSPORTS) -> str:
        wheel = make_wheel(Distribution(name, scheme, code, group), tmp_path)
        install_wheels([wheel], tmp_path / "installed")
        return str(tmp_path / "installed")

    return install


def run(code: str, folder: str, **env: str) -> str:
    return run_python("import umbel, errno\n" + code, PYTHONPATH=folder, **env)


def test_a_third_partys_transport_is_found_by_its_scheme(install: Install) -> None:
    folder = install("some-transport", "some", GOOD)
    code = """
a, b = umbel.pair("some")
umbel.bsend(a, b"hello")
assert umbel.brecv(b, 5) == b"hello"
with umbel.go(umbel.close, a):
    assert umbel.close(b).consumed        # the standard shutdown
try:
    umbel.ipc_close(umbel.pair("some")[0])
except umbel.NotSupportedError as error:
    print(error)
import os; os._exit(0)
"""
    with python("import umbel\n" + code, PYTHONPATH=folder) as process:
        process.communicate(timeout=30)
        assert process.returncode == 0


def test_an_unknown_scheme_names_the_nearest(install: Install) -> None:
    with pytest.raises(umbel.UnknownTransportError, match="there is ipc"):
        umbel.listen("ipx:x")
    with pytest.raises(umbel.UnknownTransportError, match="ipc, tcp, mem"):
        umbel.connect("quic://x")
    with pytest.raises(umbel.UnknownTransportError, match="write 'ipc:/folder/x"):
        umbel.connect("unix:/folder/x.sock")


@pytest.mark.parametrize("scheme", ["nosuch", "broken"])
def test_a_transport_that_can_not_be_loaded_keeps_nothing_of_its_caller(
    scheme: str, install: Install
) -> None:
    code = """
import weakref
import umbel
class Mine: pass
def call():
    mine = Mine()
    try:
        umbel.connect(SCHEME + "://x")
    except umbel.UmbelError:
        return weakref.ref(mine)
assert call()() is None
"""
    folder = install("broken", "broken", "1 / 0")

    run_python(f"SCHEME = {scheme!r}{code}", PYTHONPATH=folder)


def test_what_a_transport_cannot_do_is_enotsup(install: Install) -> None:
    folder = install("some-transport", "some", GOOD)
    code = """
try:
    umbel.listen("some:x")
except umbel.NotSupportedError as error:
    print(error)
"""
    assert "some-transport 1.0) can't listen" in run(code, folder)


def test_a_built_in_can_be_replaced_when_asked_for(install: Install) -> None:
    folder = install("own-mem", "mem", "print('own')\n" + GOOD)
    code = """
umbel.prefer("mem", "own-mem")
for end in umbel.pair():
    umbel.hclose(end)
"""
    assert run(code, folder) == "own\n"


@pytest.mark.parametrize("seed", ["1", "2", "3", "4"])
def test_of_two_preferred_distributions_the_last_counts(seed: str) -> None:
    code = """
import umbel
try:
    umbel.pair("mem")
except umbel.UnknownTransportError as error:
    print("'last' is preferred" in str(error))
"""
    preferred = "mem=first,mem=last"
    told = run_python(code, UMBEL_PREFER=preferred, PYTHONHASHSEED=seed)

    assert told == "True\n"


def test_one_plugin_may_serve_two_schemes(install: Install) -> None:
    install("some-transport", "some", GOOD)
    alias = "from some_transport import transport"
    folder = install("alias-transport", "alias", alias)
    code = """
for scheme in ("some", "alias"):
    for end in umbel.pair(scheme):
        umbel.hclose(end)
"""
    run(code, folder)


def test_many_threads_that_load_a_broken_transport_are_all_told(
    install: Install,
) -> None:
    slow = "import time; time.sleep(0.02); raise RuntimeError('at import')"
    folder = install("broken-transport", "broken", slow)
    code = """
from concurrent.futures import ThreadPoolExecutor
def use(_):
    try:
        umbel.pair("broken")
    except umbel.PluginError as error:
        return "broken-transport 1.0" in str(error) and "at import" in str(error)
with ThreadPoolExecutor(8) as pool:
    print(list(pool.map(use, range(8))).count(True))
for end in umbel.pair("mem"):
    umbel.hclose(end)
"""
    assert run(code, folder) == "8\n"


def test_threads_load_different_transports_at_once(install: Install) -> None:
    slow = "import time; time.sleep(0.02)\n" + GOOD
    for number in range(3):
        install(f"transport-{number}", f"some{number}", slow)
    folder = install("transport-3", "some3", slow)
    code = """
from concurrent.futures import ThreadPoolExecutor
def use(number):
    for end in umbel.pair(f"some{number % 4}"):
        umbel.hclose(end)
    return number
with ThreadPoolExecutor(8) as pool:
    print(sum(pool.map(use, range(8))))
"""
    assert run(code, folder) == "28\n"


def test_a_transport_may_use_another_while_it_is_imported(install: Install) -> None:
    uses = "import umbel\nfor end in umbel.pair('mem'): umbel.hclose(end)\n"
    folder = install("some-transport", "some", uses + GOOD)

    run("for end in umbel.pair('some'): umbel.hclose(end)", folder)


def test_a_child_forked_while_another_thread_loads_can_load(install: Install) -> None:
    slow = """
import sys, time
sys.stdout.write("importing\\n"); sys.stdout.flush()
time.sleep(0.1)
"""
    folder = install("slow-transport", "slow", slow + GOOD)
    code = """
import os, threading
import umbel.plugins.registry
started = threading.Event()
importing = umbel.plugins.registry.import_entry
def import_entry(entry):
    started.set()                      # the lock is held from before here
    return importing(entry)
umbel.plugins.registry.import_entry = import_entry
def use():
    for end in umbel.pair("slow"):
        umbel.hclose(end)
loading = threading.Thread(target=use)
loading.start()
started.wait()
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of 3.12, of the thread
child = os.fork()
if not child:
    import signal
    signal.alarm(10)                   # a lock that is held for ever ends here
    for scheme in ("mem", "slow"):
        for end in umbel.pair(scheme):
            umbel.hclose(end)
    os._exit(0)
loading.join()
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert run(code, folder) == "importing\n0\n"


def test_of_many_threads_that_add_a_scheme_one_does() -> None:
    code = (
        GOOD
        + """
import umbel
from concurrent.futures import ThreadPoolExecutor
from umbel.plugins.registry import add_transport
def add(_):
    try:
        add_transport(Transport(), "own")
    except FileExistsError as error:
        return "this program serves 'own' already" in str(error)
with ThreadPoolExecutor(8) as pool:
    print(sorted(map(str, pool.map(add, range(8)))))
for end in umbel.pair("own"):
    umbel.hclose(end)
"""
    )
    assert run_python(code) == f"{['None'] + ['True'] * 7}\n"


def test_a_transport_installed_while_running_is_found(install: Install) -> None:
    with pytest.raises(umbel.UnknownTransportError):
        umbel.pair("late")
    folder = install("late-transport", "late", GOOD)
    code = """
import sys
try:
    umbel.pair("late")
except umbel.UnknownTransportError:
    pass
sys.path.append(sys.argv[1])
for end in umbel.pair("late"):
    umbel.hclose(end)
"""
    run_python("import umbel\n" + code, folder)


BLOCKING = """
import sys
left, right = umbel.pair("ipc")
{block}
for call in (lambda: umbel.pair("ipc"), lambda: umbel.ipc_listen("x"),
             lambda: umbel.ipc_fromfd(0)):
    try:
        call()
    except umbel.NotSupportedError as error:
        assert error.errno == errno.ENOTSUP
        assert "blocked" in str(error)
    else:
        raise SystemExit("not blocked")
umbel.bsend(left, b"open ones go on")
assert umbel.brecv(right, 15) == b"open ones go on"
umbel.hclose(left)
with umbel.go(umbel.hclose, right):
    pass
"""


@pytest.mark.parametrize(
    "block", ["umbel.block('ipc')", "umbel.block('*')", "umbel.allow_only('mem')"]
)
def test_a_blocked_transport_is_enotsup_while_open_handles_go_on(block: str) -> None:
    run_python("import umbel, errno\n" + BLOCKING.format(block=block))


def test_a_later_list_of_what_is_allowed_replaces_an_earlier_one() -> None:
    code = """
umbel.allow_only("mem")
umbel.allow_only("ipc", "tcp")
for end in umbel.pair("ipc"):
    umbel.hclose(end)
umbel.hclose(umbel.listen("tcp://127.0.0.1:0"))
try:
    umbel.pair("mem")
except umbel.NotSupportedError:
    print("blocked")
"""
    assert run_python("import umbel\n" + code) == "blocked\n"


@pytest.mark.parametrize(
    "call",
    ["block('IPC')", "block('tcp,ipc')", "allow_only('IPC')", "prefer('*', 'x')"],
)
def test_what_can_be_no_scheme_is_refused_where_it_would_forbid_nothing(
    call: str,
) -> None:
    code = f"""
try:
    umbel.{call}
except OSError as error:
    print(error.errno == errno.EINVAL, "can't be a scheme" in str(error))
"""
    assert run_python("import umbel, errno\n" + code) == "True True\n"


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("UMBEL_DISABLE", "tcp;ipc", "'tcp;ipc' can't be a scheme"),
        ("UMBEL_ALLOW", "tcp;ipc", "'tcp;ipc' can't be a scheme"),
        ("UMBEL_PREFER", "mem=own,MEM=own", "'MEM' can't be a scheme"),
        ("UMBEL_PREFER", "mem", "'mem' names no distribution"),
        ("UMBEL_PREFER", "=own", "'' can't be a scheme"),
    ],
)
def test_so_is_it_in_the_variables(variable: str, value: str, told: str) -> None:
    code = """
try:
    import umbel
except OSError as error:
    print(error.strerror)
"""
    assert f"{variable}: {told}" in run_python(code, **{variable: value})


def test_a_list_without_a_name_allows_none() -> None:
    code = """
import umbel
try:
    umbel.pair("mem")
except umbel.NotSupportedError:
    print("blocked")
"""
    assert run_python(code, UMBEL_ALLOW=",") == "blocked\n"


@pytest.mark.parametrize("text", ["*", "ipc, *"])
def test_a_star_forbids_all(text: str) -> None:
    code = """
import umbel
for scheme in ("mem", "ipc"):
    try:
        umbel.pair(scheme)
    except umbel.NotSupportedError:
        print(scheme)
"""
    assert run_python(code, UMBEL_DISABLE=text) == "mem\nipc\n"


def test_what_is_blocked_stays_so_when_it_is_allowed() -> None:
    code = """
umbel.block("mem")
umbel.allow_only("mem")
try:
    umbel.pair("mem")
except umbel.NotSupportedError:
    print("blocked")
"""
    assert run_python("import umbel\n" + code) == "blocked\n"


def test_an_unknown_scheme_that_is_blocked_is_enotsup(install: Install) -> None:
    code = """
try:
    umbel.pair("nothing")
except umbel.NotSupportedError as error:
    print(error.errno == errno.ENOTSUP)
"""
    assert run(code, "", UMBEL_DISABLE="nothing") == "True\n"


def test_the_list_of_transports_tells_what_became_of_each(install: Install) -> None:
    install("broken-transport", "broken", "raise RuntimeError('at import')")
    folder = install("some-transport", "some", GOOD)
    code = """
from umbel.plugins.registry import installed_transports
umbel.block("tcp")
for scheme in ("mem", "broken", "tcp"):
    try:
        for end in umbel.pair(scheme):
            umbel.hclose(end)
    except OSError:
        pass
for line in installed_transports():
    print(line.scheme, line.state.partition(":")[0])
"""
    assert set(run(code, folder).splitlines()) >= {
        "broken failed",
        "ipc not loaded yet",
        "mem loaded",
        "some not loaded yet",
        "tcp blocked",
    }


def test_an_allowed_transport_works() -> None:
    run_python(
        "import umbel\nfor e in umbel.ipc_pair(): umbel.hclose(e)", UMBEL_ALLOW="ipc"
    )


# Observers.

Log = list[object]


class Observer:
    """Notes what passes, and changes it as told."""

    def __init__(self) -> None:
        self.log: Log = []
        self.answer: Outcome[object] | None = None

    @hookimpl(wrapper=True)
    def umbel_close(
        self, context: CloseContext
    ) -> Generator[None, Outcome[object], Outcome[object] | None]:
        self.log.append(context.handle)
        outcome = yield
        self.log.append(outcome)
        return self.answer


@pytest.fixture
def observer() -> Iterator[Observer]:
    made = Observer()
    add_plugin(made, "observer")
    yield made
    remove_plugin("observer")


def close_pair() -> umbel.CloseReport:
    left, right = umbel.ipc_pair()
    umbel.done(right)
    try:
        return umbel.close(left, 0)
    finally:
        umbel.hclose(right)


def test_a_wrapper_sees_an_orderly_close_pass_once(observer: Observer) -> None:
    report = close_pair()

    number, outcome = observer.log
    assert isinstance(number, int)
    assert outcome == Outcome(report, None)


def test_a_wrapper_sees_the_error_of_a_close(observer: Observer) -> None:
    left, right = umbel.ipc_pair()

    with pytest.raises(umbel.DeadlineError) as caught:
        umbel.close(left, 0)
    umbel.hclose(right)

    assert observer.log[1] == Outcome(None, caught.value)


def test_a_wrapper_can_turn_a_close_into_an_error(observer: Observer) -> None:
    observer.answer = Outcome(None, ZeroDivisionError())

    with pytest.raises(ZeroDivisionError):
        close_pair()


def test_a_wrapper_can_turn_an_error_into_a_report(observer: Observer) -> None:
    observer.answer = Outcome(umbel.CloseReport(None, 7))
    left, right = umbel.ipc_pair()

    assert umbel.close(left, 0) == umbel.CloseReport(None, 7)
    umbel.hclose(right)


def test_a_removed_observer_sees_nothing(observer: Observer) -> None:
    remove_plugin("observer")
    close_pair()
    add_plugin(observer, "observer")

    assert observer.log == []


class Failing:
    """Does everything wrong that a wrapper can."""

    def __init__(self, how: str) -> None:
        self.how = how

    def _run(self) -> Generator[None, Outcome[object], Outcome[object] | None]:
        if self.how == "before":
            raise RuntimeError("before")
        if self.how == "no yield":
            return None
        yield
        if self.how == "after":
            raise RuntimeError("after")
        if self.how == "twice":
            yield
        return 5 if self.how == "result" else None  # type: ignore[return-value]

    @hookimpl(wrapper=True)
    def umbel_close(
        self, context: CloseContext
    ) -> Generator[None, Outcome[object], Outcome[object] | None]:
        return (yield from self._run())

    @hookimpl(wrapper=True)
    def umbel_listen(
        self, context: ListenContext
    ) -> Generator[None, Outcome[object], Outcome[object] | None]:
        return (yield from self._run())


@pytest.mark.parametrize("how", ["before", "no yield", "after", "twice", "result"])
def test_a_wrapper_that_fails_is_logged_by_name_and_changes_nothing(
    how: str, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    add_plugin(Failing(how), "bad-plugin")

    with caplog.at_level(logging.ERROR, "umbel"):
        report = close_pair()
        umbel.hclose(umbel.ipc_listen(tmp_path / "x.sock"))
    remove_plugin("bad-plugin")

    assert report == umbel.CloseReport(True, 0)
    assert caplog.text.count("bad-plugin") >= 2


def test_a_refused_listener_is_not_leaked(tmp_path: Path) -> None:
    class Refusing:
        @hookimpl(wrapper=True)
        def umbel_listen(
            self, context: ListenContext
        ) -> Generator[None, Outcome[Listener], Outcome[Listener]]:
            yield
            return Outcome(None, PermissionError("not here"))

    add_plugin(Refusing(), "refusing")
    try:
        with pytest.raises(PermissionError):
            umbel.ipc_listen(tmp_path / "x.sock")
    finally:
        remove_plugin("refusing")

    assert not (tmp_path / "x.sock").exists()


def test_a_plugin_may_only_wrap() -> None:
    class Greedy:
        @hookimpl
        def umbel_pair(self, context: object) -> tuple[Stream, Stream] | None:
            return None

    with pytest.raises(umbel.PluginError, match=r"@hookimpl.pair.wrapper"):
        add_plugin(Greedy(), "greedy")

    close_pair()


def test_an_observer_may_wrap_a_hook_twice_the_first_written_outermost() -> None:
    seen: list[str] = []

    class Twice:
        @hookimpl.close.wrapper
        def zealous(self, context: CloseContext) -> Wrapped[umbel.CloseReport]:
            seen.append("first")
            return (yield)

        @hookimpl.close.wrapper
        def careful(self, context: CloseContext) -> Wrapped[umbel.CloseReport]:
            seen.append("second")
            return (yield)

    add_plugin(Twice(), "twice")
    close_pair()
    remove_plugin("twice")

    assert seen == ["first", "second"]


def test_what_can_not_be_an_observer_is_told_why() -> None:
    class Starting:
        @hookimpl(wrapper=True)
        def umbel_start(self) -> Iterator[None]:
            yield

    for plugin, why in (
        (Starting(), "umbel_start, which nothing can wrap"),
        (object(), "has no hooks"),
        (5, "has no hooks"),
    ):
        with pytest.raises(umbel.PluginError, match=why):
            add_plugin(plugin, "no observer")
    with pytest.raises(TypeError, match="each by itself"):
        umbel.load_plugins(["trace"])  # type: ignore[arg-type]  # what it is about


def test_what_can_not_be_a_transport_is_told_why() -> None:
    class Two:
        @hookimpl.pair
        def left(self, context: PairContext) -> tuple[Stream, Stream]:
            raise NotImplementedError

        @hookimpl.pair
        def right(self, context: PairContext) -> tuple[Stream, Stream]:
            raise NotImplementedError

    class Starting:
        @hookimpl.pair
        def pair(self, context: PairContext) -> tuple[Stream, Stream]:
            raise NotImplementedError

        @hookimpl.start
        def start(self) -> None:
            raise NotImplementedError

    for plugin, why in (
        (Two(), "left and right are both for umbel_pair"),
        (Starting(), "implements umbel_start, which no transport has"),
    ):
        with pytest.raises(umbel.PluginError, match=why):
            add_transport(plugin, "none")
    add_transport(MemTransport(), "none")  # nothing of the others is left
    remove_transport("none")


def test_a_scheme_that_was_removed_is_free_for_another_plugin() -> None:
    both = MemTransport()
    add_transport(both, "first")
    add_transport(both, "second")
    remove_transport("first")

    add_transport(MemTransport(), "first")

    for scheme in ("first", "second"):
        for end in umbel.pair(scheme):
            umbel.hclose(end)
        remove_transport(scheme)


def test_an_entry_point_in_another_group_is_named(install: Install) -> None:
    folder = install("lost-transport", "lost", GOOD, "umbel.transports")
    code = """
try:
    umbel.connect("lost://x")
except umbel.PluginError as error:
    print(error)
"""
    assert "lost-transport 1.0 is in the entry-point group" in run(code, folder)


def test_an_import_without_descriptors_is_emfile_and_works_later() -> None:
    code = """
from umbel.testing.conformance.looking import few_descriptors
for end in umbel.ipc_pair():
    umbel.hclose(end)
assert "umbel_transports.mem" not in sys.modules
try:
    with few_descriptors(0):
        umbel.pair("mem")
except OSError as error:
    print(type(error).__name__, errno.errorcode[error.errno])
for end in umbel.pair("mem"):
    umbel.hclose(end)
umbel.receive_handle  # what it needs is imported before descriptors come
print("json" in sys.modules)
"""
    assert run_python("import errno, sys, umbel\n" + code) == "OSError EMFILE\nTrue\n"


def test_plugins_are_loaded_on_request_by_name(install: Install) -> None:
    watching = """
from umbel.spi import hookimpl
class Watching:
    @hookimpl(wrapper=True)
    def umbel_pair(self, context):
        print("pair", context.scheme)
        outcome = yield
        return outcome
transport = Watching()
"""
    folder = install("watching", "watch", watching, "umbel.plugins.v1")
    code = """
def use():
    for end in umbel.pair("mem"):
        umbel.hclose(end)
use()
print("loading")
umbel.load_plugins("watch")
umbel.load_plugins("watch")
use()
try:
    umbel.load_plugins("nothing")
except umbel.PluginError as error:
    print("watch" in str(error))
"""
    assert run(code, folder) == "loading\npair mem\nTrue\n"


def test_plugins_are_loaded_by_environment(install: Install) -> None:
    watching = """
from umbel.spi import hookimpl
class Watching:
    @hookimpl(wrapper=True)
    def umbel_close(self, context):
        outcome = yield
        print("closed", outcome.value)
        return None
transport = Watching()
"""
    folder = install("watching", "watch", watching, "umbel.plugins.v1")
    code = """
a, b = umbel.pair("mem")
umbel.done(b)
umbel.close(a)
umbel.hclose(b)
"""
    out = run(code, folder, UMBEL_PLUGINS="watch")

    assert out == "closed CloseReport(consumed=True, discarded=0)\n"


@pytest.mark.parametrize(
    ("broken", "cause"),
    [
        ("raise RuntimeError('at import')", "at import"),
        (GOOD, "implements umbel_pair itself"),
        (
            "from umbel.spi import hookimpl\n"
            "class P:\n"
            "    @hookimpl(wrapper=True)\n"
            "    def umbel_clsoe(self, context): yield\n"
            "transport = P()",
            "umbel_clsoe",
        ),
        (
            "from umbel.spi import hookimpl\n"
            "class P:\n"
            "    @hookimpl(wrapper=True)\n"
            "    def umbel_close(self, context): return None\n"
            "transport = P()",
            "umbel_close",
        ),
    ],
    ids=["raises", "no wrapper", "mistyped hook", "no generator"],
)
def test_a_broken_plugin_is_named_with_its_cause_and_is_not_in_force(
    install: Install, broken: str, cause: str
) -> None:
    folder = install("broken-plugin", "bad", broken, "umbel.plugins.v1")
    code = """
for _ in range(2):
    try:
        umbel.load_plugins("bad")
    except umbel.PluginError as error:
        assert error.errno == errno.ELIBACC
        print(error)
a, b = umbel.pair("mem")
umbel.done(b)
umbel.close(a)
umbel.hclose(b)
"""
    out = run(code, folder)

    assert out.count("broken-plugin 1.0") >= 2
    assert cause in out


def test_two_distributions_with_one_plugin_name_are_eexist(install: Install) -> None:
    install("one-plugin", "same", "transport = object()", "umbel.plugins.v1")
    folder = install("other-plugin", "same", "transport = object()", "umbel.plugins.v1")
    code = """
try:
    umbel.load_plugins("same")
except FileExistsError as error:
    print(error)
"""
    assert "one-plugin 1.0 and other-plugin 1.0 both bring" in run(code, folder)


# Plugins that are odd objects.


@dataclass
class Alike:
    """Equals every other one, as dataclasses do, and can't be hashed."""

    @hookimpl.pair
    def pair(self, context: PairContext) -> tuple[Stream, Stream]:
        return MemTransport().pair(context)


def test_a_plugin_that_equals_a_loaded_one_is_told_which_and_breaks_nothing() -> None:
    one, other = Alike(), Alike()
    add_transport(one, "alike")
    try:
        add_transport(one, "same")  # one plugin may serve two schemes
        remove_transport("same")
        with pytest.raises(
            umbel.PluginError, match=r"or equals, the plugin '[^']*v1:alike'"
        ) as caught:
            add_transport(other, "alike-too")
        for end in umbel.pair("alike"):
            umbel.hclose(end)
    finally:
        remove_transport("alike")

    assert len(str(caught.value)) < 250  # and not a list of all plugins


def test_an_object_whose_own_methods_fail_is_a_plugin_error() -> None:
    class Hidden(Alike):
        def __dir__(self) -> list[str]:
            raise RuntimeError("not to be looked at")

    class Incomparable(Alike):
        def __eq__(self, other: object) -> bool:
            raise RuntimeError("not to be compared")

        __hash__ = None  # type: ignore[assignment]  # as dataclasses have it

    add_transport(Alike(), "alike")
    try:
        for odd in (Hidden(), Incomparable()):
            with pytest.raises(umbel.PluginError, match="contract: not to be"):
                add_transport(odd, "odd")
    finally:
        remove_transport("alike")


def test_a_pair_by_an_address_is_told_to_be_by_a_scheme() -> None:
    with pytest.raises(umbel.UnknownTransportError, match="give a scheme alone") as e:
        umbel.pair("mem://x")

    assert "install" not in str(e.value)
