"""IP addresses by libdill's names."""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Callable

import pytest

import umbel
from tests.support import calls, lateness, run_in_own_network
from umbel import IpAddress
from umbel.ipaddr import ipaddr_sockaddr

#: What a resolver gives: family and socket address.
Found = tuple[int, tuple[object, ...]]

FOUR: Found = (socket.AF_INET, ("192.0.2.7", 0))
FOUR_MORE: Found = (socket.AF_INET, ("192.0.2.8", 0))
SIX: Found = (socket.AF_INET6, ("2001:db8::7", 0, 0, 0))


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Give a function that says what looking up any name finds."""

    def find(*found: Found) -> None:
        rows = [(family, socket.SOCK_STREAM, 6, "", where) for family, where in found]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: rows)

    return find


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Give a function that says what looking up any name raises."""

    def fail(error: BaseException) -> None:
        def look_up(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr(socket, "getaddrinfo", look_up)

    return fail


# Local.


@pytest.mark.parametrize(
    ("mode", "host"),
    [
        (0, "0.0.0.0"),
        (umbel.IPADDR_IPV4, "0.0.0.0"),
        (umbel.IPADDR_PREF_IPV4, "0.0.0.0"),
        (umbel.IPADDR_IPV6, "::"),
        (umbel.IPADDR_PREF_IPV6, "::"),
    ],
)
def test_no_name_is_all_of_this_machine(mode: int, host: str) -> None:
    assert umbel.ipaddr_local(None, 5555, mode) == IpAddress(host, 5555)


@pytest.mark.parametrize(
    ("mode", "numbers"),
    [
        (0, ("127.0.0.1", "::1")),
        (umbel.IPADDR_IPV4, ("127.0.0.1",)),
        (umbel.IPADDR_IPV6, ("::1",)),
        (umbel.IPADDR_PREF_IPV4, ("127.0.0.1", "::1")),
        (umbel.IPADDR_PREF_IPV6, ("127.0.0.1", "::1")),
    ],
)
def test_a_number_is_taken_as_it_is_if_the_mode_allows_it(
    mode: int, numbers: tuple[str, ...]
) -> None:
    for number in ("127.0.0.1", "::1"):
        if number in numbers:
            found = umbel.ipaddr_local(number, 1, mode)
            assert umbel.ipaddr_str(found) == number
            assert umbel.ipaddr_remotes(number, 1, mode, 0) == [found]
        else:
            with pytest.raises(OSError, match="neither an interface") as caught:
                umbel.ipaddr_local(number, 1, mode)
            assert caught.value.errno == errno.ENODEV
            assert umbel.ipaddr_remotes(number, 1, mode, 0) == []


def test_an_interface_gives_an_address_that_can_be_listened_at() -> None:
    assert umbel.ipaddr_local("lo", 0) == IpAddress("127.0.0.1", 0)
    assert umbel.ipaddr_local("lo", 0, umbel.IPADDR_IPV4) == IpAddress("127.0.0.1", 0)


def test_an_interface_gives_its_ipv6_address_if_that_is_wanted() -> None:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6")

    for mode in (umbel.IPADDR_IPV6, umbel.IPADDR_PREF_IPV6):
        assert umbel.ipaddr_local("lo", 1, mode) == IpAddress("::1", 1)


@pytest.mark.parametrize(
    "name", ["nothing0", "lo\0x", "lo" + "x" * 14, "lo" * 200, "", "ütf", "\ud800"]
)
def test_what_is_no_interface_is_enodev(name: str) -> None:
    for mode in (0, umbel.IPADDR_IPV6):
        with pytest.raises(OSError, match="neither an interface") as caught:
            umbel.ipaddr_local(name, 0, mode)
        assert caught.value.errno == errno.ENODEV


def test_an_interface_may_have_any_name() -> None:
    code = "import umbel; print(*umbel.ipaddr_local('lö', 1, umbel.IPADDR_IPV6))"
    setup = (
        "ip link set lo name lö && ip link set lö up && grep -q . /proc/net/if_inet6"
    )

    assert run_in_own_network(setup, code) == "::1 1\n"


def test_the_address_of_a_link_is_given_if_there_is_no_better_one() -> None:
    code = """if True:
        import subprocess, umbel
        add = "ip", "addr", "add", "dev", "lo"
        ask = lambda: umbel.ipaddr_local("lo", 1, umbel.IPADDR_IPV6).host
        subprocess.run([*add, "fe80::2/64"], check=True)
        near = ask()
        subprocess.run([*add, "2001:db8::1/64"], check=True)
        print(near, ask())
    """
    setup = "ip link set lo up && ip addr del ::1 dev lo"

    assert run_in_own_network(setup, code) == "fe80::2%lo 2001:db8::1\n"


# Errors of the caller.


@pytest.mark.parametrize("port", [-1, 65536, 1 << 40])
def test_a_port_out_of_range_is_einval(port: int) -> None:
    for call in calls(
        lambda: umbel.ipaddr_local(None, port),
        lambda: umbel.ipaddr_local("127.0.0.1", port),
        lambda: umbel.ipaddr_remote("127.0.0.1", port),
        lambda: umbel.ipaddr_remotes("127.0.0.1", port),
        lambda: umbel.ipaddr_setport(IpAddress("::1", 1), port),
    ):
        with pytest.raises(OSError, match=r"give 0 to 65535") as caught:
            call()
        assert caught.value.errno == errno.EINVAL


def test_port_0_is_for_listening_only() -> None:
    assert umbel.ipaddr_local("127.0.0.1", 0).port == 0
    with pytest.raises(OSError, match="give 1 to 65535") as caught:
        umbel.ipaddr_remote("127.0.0.1", 0)
    assert caught.value.errno == errno.EINVAL


@pytest.mark.parametrize("mode", [-1, 5, 99])
def test_an_unknown_mode_is_einval(mode: int) -> None:
    for call in calls(
        lambda: umbel.ipaddr_local("127.0.0.1", 1, mode),
        lambda: umbel.ipaddr_remote("127.0.0.1", 1, mode),
    ):
        with pytest.raises(OSError, match="IPADDR_ constant") as caught:
            call()
        assert caught.value.errno == errno.EINVAL


def test_what_is_no_name_or_port_at_all_is_a_type_error() -> None:
    for name in (5, b"\x7f\0\0\1"):
        with pytest.raises(TypeError, match="is a str"):
            umbel.ipaddr_local(name, 1)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="is a str"):
            umbel.ipaddr_remote(name, 1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="is an int"):
        umbel.ipaddr_local(None, "80")  # type: ignore[arg-type]


# Remote.


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        (0, [FOUR, FOUR_MORE, SIX]),
        (umbel.IPADDR_PREF_IPV4, [FOUR, FOUR_MORE, SIX]),
        (umbel.IPADDR_PREF_IPV6, [SIX, FOUR, FOUR_MORE]),
        (umbel.IPADDR_IPV4, [FOUR, FOUR_MORE]),
        (umbel.IPADDR_IPV6, [SIX]),
    ],
)
def test_the_mode_chooses_and_orders_what_a_name_has(
    resolver: Callable[..., None], mode: int, expected: list[Found]
) -> None:
    resolver(FOUR, SIX, FOUR_MORE, FOUR)
    addresses = [IpAddress(str(where[0]), 80) for _, where in expected]

    assert umbel.ipaddr_remotes("many.invalid", 80, mode) == addresses
    assert umbel.ipaddr_remote("many.invalid", 80, mode) == addresses[0]


def test_a_preference_is_no_demand(resolver: Callable[..., None]) -> None:
    resolver(FOUR)
    found = umbel.ipaddr_remote("four.invalid", 80, umbel.IPADDR_PREF_IPV6)

    assert found == IpAddress("192.0.2.7", 80)


def test_a_name_without_the_wanted_kind_has_no_addresses(
    resolver: Callable[..., None],
) -> None:
    resolver(FOUR)

    assert umbel.ipaddr_remotes("four.invalid", 80, umbel.IPADDR_IPV6) == []
    with pytest.raises(OSError, match=r"'four\.invalid' is unknown, or") as caught:
        umbel.ipaddr_remote("four.invalid", 80, umbel.IPADDR_IPV6)
    assert caught.value.errno == errno.EADDRNOTAVAIL


@pytest.mark.parametrize(
    "error",
    [
        socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
        UnicodeError("label too long"),
        ValueError("embedded null character"),
    ],
    ids=["not known", "too long", "with a NUL"],
)
def test_an_unknown_name_has_no_addresses(
    failing: Callable[[BaseException], None], error: BaseException
) -> None:
    failing(error)

    assert umbel.ipaddr_remotes("nobody.invalid", 80) == []
    with pytest.raises(OSError, match=r"'nobody\.invalid' is unknown") as caught:
        umbel.ipaddr_remote("nobody.invalid", 80)
    assert caught.value.errno == errno.EADDRNOTAVAIL


def test_a_name_that_no_resolver_takes_is_unknown() -> None:
    assert umbel.ipaddr_remotes("a" * 70 + ".invalid", 80, 0, umbel.within(20)) == []
    assert umbel.ipaddr_remotes("localhost\0b", 80, 0, umbel.within(20)) == []


def test_a_look_up_that_fails_says_so_and_is_not_the_same_as_none(
    failing: Callable[[BaseException], None],
) -> None:
    failing(socket.gaierror(socket.EAI_AGAIN, "Temporary failure"))

    for call in (umbel.ipaddr_remote, umbel.ipaddr_remotes):
        with pytest.raises(OSError, match="failed: Temporary failure") as caught:
            call("any.invalid", 80)
        assert caught.value.errno == errno.EADDRNOTAVAIL


def test_the_address_of_a_link_keeps_its_interface(
    resolver: Callable[..., None],
) -> None:
    index, name = socket.if_nameindex()[0]
    resolver((socket.AF_INET6, ("fe80::1", 0, 0, index)))

    found = umbel.ipaddr_remote("near.invalid", 80)

    assert found == IpAddress(f"fe80::1%{name}", 80)
    assert str(found) == f"[fe80::1%{name}]:80"


@pytest.fixture
def stuck(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Have each look-up wait for the event that this gives."""
    answer = threading.Event()

    def look_up(*_: object, **__: object) -> list[object]:
        answer.wait(20)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return answer


def test_a_look_up_ends_at_its_deadline(stuck: threading.Event) -> None:
    def look_up(deadline: int) -> None:
        umbel.ipaddr_remote("slow.invalid", 80, 0, deadline)

    try:
        assert lateness(look_up) <= 20
        with pytest.raises(umbel.DeadlineError):
            umbel.ipaddr_remotes("slow.invalid", 80, 0, 0)
    finally:
        stuck.set()


def test_a_look_up_holds_up_no_other_coroutine(stuck: threading.Event) -> None:
    order: list[str] = []

    def other() -> None:
        order.append("other")
        stuck.set()  # the look-up ends only because this one runs meanwhile

    with umbel.go(other):
        assert umbel.ipaddr_remotes("slow.invalid", 80, 0, umbel.within(20)) == []
        order.append("looked up")

    assert order == ["other", "looked up"]


def test_a_look_up_can_be_canceled(stuck: threading.Event) -> None:
    looking = umbel.go(umbel.ipaddr_remote, "slow.invalid", 80)
    umbel.yield_()
    umbel.hclose(looking)  # returns when the coroutine has stopped
    stuck.set()


def test_a_number_is_never_looked_up(
    failing: Callable[[BaseException], None],
) -> None:
    failing(AssertionError("looked up"))

    assert umbel.ipaddr_remote("192.0.2.1", 80, 0, 0) == IpAddress("192.0.2.1", 80)
    assert umbel.ipaddr_remote("2001:DB8::0:1", 80, 0, 0).host == "2001:db8::1"


# What an address tells.


def test_an_address_tells_its_parts() -> None:
    four, six = IpAddress("192.0.2.1", 80), IpAddress("2001:db8::1", 443)

    assert (umbel.ipaddr_str(four), umbel.ipaddr_str(six)) == (
        "192.0.2.1",
        "2001:db8::1",
    )
    assert (umbel.ipaddr_port(four), umbel.ipaddr_port(six)) == (80, 443)
    assert umbel.ipaddr_family(four) == socket.AF_INET
    assert umbel.ipaddr_family(six) == socket.AF_INET6
    assert (str(four), str(six)) == ("192.0.2.1:80", "[2001:db8::1]:443")


def test_an_address_with_another_port_is_a_new_one() -> None:
    first = IpAddress("192.0.2.1", 80)

    assert umbel.ipaddr_setport(first, 81) == IpAddress("192.0.2.1", 81)
    assert first.port == 80


@pytest.mark.parametrize(
    ("first", "second", "same", "same_host"),
    [
        (IpAddress("192.0.2.1", 1), IpAddress("192.0.2.1", 1), True, True),
        (IpAddress("192.0.2.1", 1), IpAddress("192.0.2.1", 2), False, True),
        (IpAddress("192.0.2.1", 1), IpAddress("192.0.2.2", 1), False, False),
        (IpAddress("::1", 1), IpAddress("0:0::0:1", 1), True, True),
        (IpAddress("::ffff:192.0.2.1", 1), IpAddress("192.0.2.1", 1), False, False),
        (IpAddress("fe80::1%lo", 1), IpAddress("fe80::1%eth0", 1), False, False),
    ],
)
def test_addresses_are_equal_by_number_and_port(
    first: IpAddress, second: IpAddress, same: bool, same_host: bool
) -> None:
    assert umbel.ipaddr_equal(first, second) is same
    assert umbel.ipaddr_equal(first, second, ignore_port=True) is same_host


def test_an_address_can_be_given_to_pythons_own_sockets() -> None:
    index, name = socket.if_nameindex()[0]

    assert ipaddr_sockaddr(IpAddress("192.0.2.1", 80)) == ("192.0.2.1", 80)
    assert ipaddr_sockaddr(IpAddress("::1", 80)) == ("::1", 80, 0, 0)
    for zone in (name, index):
        address = IpAddress(f"fe80::1%{zone}", 80)
        assert ipaddr_sockaddr(address) == ("fe80::1", 80, 0, index)
    with pytest.raises(OSError, match="no interface 'none0'") as caught:
        ipaddr_sockaddr(IpAddress("fe80::1%none0", 80))
    assert caught.value.errno == errno.ENODEV

    with umbel.tcp_listen(IpAddress("127.0.0.1", 0)) as listener, socket.socket() as s:
        s.connect(ipaddr_sockaddr(umbel.tcp_address(listener)))
        server, peer = umbel.tcp_accept(listener, umbel.within(20))
        assert ipaddr_sockaddr(peer) == s.getsockname()
        umbel.hclose(server)
