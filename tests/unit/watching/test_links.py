"""How helpers of other hosts find the hub, and what they find instead."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Any

import pytest

from paratrain.watching.hub import Hub
from paratrain.watching.links import Greeting, HubSearch, listen, ways_to
from paratrain.watching.settings import WatchSettings
from paratrain.watching.wire import Wire

HELLO = {"node": 1, "host": "node1"}
TOKEN = "5eed"


def greet(connection: socket.socket, token: str = TOKEN) -> tuple[Wire, Greeting, list[dict[str, Any]]]:
    """Take in a helper; raise ValueError where it is none of ours. Returns all that it has said, too."""
    wire, greeting, heard, is_welcome = Wire(connection), Greeting(token), [], False
    while not is_welcome and wire.is_open:
        for message in wire.receive():
            heard.append(message)
            is_welcome = greeting.answer(wire, message)
    return wire, greeting, heard


def test_the_hub_is_found_at_the_address_that_works() -> None:
    with listen() as listener:
        port = listener.getsockname()[1]
        search = HubSearch(["no.such.host.invalid", "127.0.0.1"], port, HELLO, TOKEN)
        near, greeting, heard = greet(listener.accept()[0])
        assert {name: greeting.hello[name] for name in HELLO} == HELLO
        assert TOKEN not in str(heard)
        near.send({"kind": "beat"})
        far = search.found.get(timeout=10)
        assert isinstance(far, Wire)
        while not (received := far.receive()):
            pass
        assert received == [{"kind": "beat"}]
        near.close()
        far.close()


def test_a_helper_of_another_job_and_a_hub_of_another_job_refuse_each_other() -> None:
    with listen() as listener:
        search = HubSearch(["127.0.0.1"], listener.getsockname()[1], HELLO, "other", within_s=0.5)
        wire, greeting, heard = greet(listener.accept()[0])
        wire.close()
        assert len(heard) == 1  # after the hub's answer it has said no more
        assert "another program answers" in str(search.found.get(timeout=10))
        with pytest.raises(ValueError, match="another program"):
            greeting.answer(wire, {"kind": "proof", "proof": "0" * 64})


def test_what_was_overheard_is_of_no_use_later() -> None:
    """Who repeats what a helper has said is asked for another proof."""
    with listen() as listener:
        search = HubSearch(["127.0.0.1"], listener.getsockname()[1], HELLO, TOKEN)
        near, _, heard = greet(listener.accept()[0])
        found = search.found.get(timeout=10)
        assert isinstance(found, Wire)
        again = Greeting(TOKEN)
        assert not again.answer(near, heard[0])
        with pytest.raises(ValueError, match="another program"):
            again.answer(near, heard[1])
        near.close()
        found.close()


def test_a_false_hub_is_not_believed_and_hears_no_secret() -> None:
    """It listens where the hub is looked for, welcomes whoever comes, and sends back the proof that it was sent, if any."""
    heard = []

    def pretend(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                with listener.accept()[0] as connection:
                    connection.settimeout(0.3)
                    for answer in (b'{"kind": "proof", "proof": "", "number": ""}\n', b'{"kind": "welcome"}\n'):
                        with contextlib.suppress(OSError):
                            heard.append(connection.recv(1000))
                            connection.sendall(answer)

    with listen() as listener:
        threading.Thread(target=pretend, args=(listener,), daemon=True).start()
        search = HubSearch(["127.0.0.1"], listener.getsockname()[1], HELLO, TOKEN, within_s=0.5)
        assert "another program answers" in str(search.found.get(timeout=10))
        listener.shutdown(socket.SHUT_RDWR)
    assert b"node1" in heard[0]
    assert not any(TOKEN.encode() in said or b"proof" in said for said in heard)


def test_a_helper_that_gave_up_before_it_was_welcomed_is_not_lost(capfd: pytest.CaptureFixture[str]) -> None:
    for has_come in (False, True):
        orders: list[dict[str, Any]] = []
        hub = Hub(0, 2, WatchSettings(), orders.append, 0.0)
        hub.join(0, "node0", 0.0)
        near, far = socket.socketpair()
        wire = Wire(near)
        hub.join(1, "node1", 0.0, wire)
        if has_come:
            hub.take(1, {"kind": "here"}, 0.1)
        hub.drop(1, wire, 0.2)
        far.close()
        for now in (0.3, 1.0, 1.5):
            hub.decide(now)
        said = capfd.readouterr().err
        assert ("its connection was closed (or only its watcher has ended)" in said) == has_come
        assert [order["kind"] for order in orders] == ["end"] * has_come


def test_the_loopback_of_another_host_is_nobody_to_ask() -> None:
    hub = {"host": "node0", "addresses": ["127.0.0.1", "10.0.0.1", "fd00::1"], "port": 1}
    assert ways_to(hub, "node0") == hub["addresses"]
    assert ways_to(hub, "node1") == ["10.0.0.1", "fd00::1"]


def take_one(listener: socket.socket, answer: bytes) -> None:
    with listener.accept()[0] as connection:
        connection.recv(1000)
        with contextlib.suppress(OSError):
            connection.sendall(answer)


@pytest.mark.parametrize("answer", [b"", b"220 mail.example.org\r\n", b'{"kind": "beat"}\n'])
def test_another_program_is_not_the_hub(answer: bytes) -> None:
    with listen() as listener:
        thread = threading.Thread(target=take_one, args=(listener, answer))
        thread.start()
        found = HubSearch(["127.0.0.1"], listener.getsockname()[1], HELLO, TOKEN, within_s=0.5).found.get(timeout=10)
        thread.join()
    assert isinstance(found, str)
    assert "of rank 0's host does not answer (127.0.0.1: " in found


def test_a_stranger_is_refused_whatever_it_says() -> None:
    for said in (
        b'{}\n{"proof": "\xc3\xa9"}\n',
        b'{"number": 3}\n{"proof": "\\ud800"}\n',
        b"[" * 100_000 + b"\n",
        b"x" * 200_000,
    ):
        near, far = socket.socketpair()
        wire, greeting = Wire(near, 150_000), Greeting(TOKEN)
        thread = threading.Thread(target=send, args=(far, said))
        thread.start()
        with contextlib.suppress(ValueError):
            while wire.is_open:
                assert not any(greeting.answer(wire, message) for message in wire.receive())
        wire.close()
        thread.join()
        far.close()


def send(connection: socket.socket, text: bytes) -> None:
    with contextlib.suppress(OSError):
        connection.sendall(text)
