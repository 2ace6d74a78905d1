"""How helpers of other hosts find the hub, and what they find instead."""

from __future__ import annotations

import contextlib
import socket
import threading

import pytest

from paratrain.watching.links import HubSearch, greet, listen
from paratrain.watching.wire import Wire

HELLO = {"token": "5eed", "node": 1, "host": "node1"}


def take_one(listener: socket.socket, answer: bytes) -> None:
    with listener.accept()[0] as connection:
        connection.recv(1000)
        with contextlib.suppress(OSError):
            connection.sendall(answer)


def test_the_hub_is_found_at_the_address_that_works() -> None:
    with listen() as listener:
        port = listener.getsockname()[1]
        search = HubSearch(["no.such.host.invalid", "127.0.0.1"], port, HELLO)
        near = Wire(listener.accept()[0])
        messages = []
        while not messages:
            messages = near.receive()
        assert messages == [HELLO]
        assert not greet(near, messages[0], "other")
        assert greet(near, messages[0], "5eed")
        near.send({"kind": "beat"})
        far = search.found.get(timeout=10)
        assert isinstance(far, Wire)
        while not (received := far.receive()):
            pass
        assert received == [{"kind": "beat"}]
        near.close()
        far.close()


@pytest.mark.parametrize("answer", [b"", b"220 mail.example.org\r\n", b'{"kind": "beat"}\n'])
def test_another_program_is_not_the_hub(answer: bytes) -> None:
    with listen() as listener:
        thread = threading.Thread(target=take_one, args=(listener, answer))
        thread.start()
        found = HubSearch(["127.0.0.1"], listener.getsockname()[1], HELLO, within_s=0.5).found.get(timeout=10)
        thread.join()
    assert isinstance(found, str)
    assert "of rank 0's host does not answer (127.0.0.1: " in found


def test_a_stranger_is_refused_whatever_it_says() -> None:
    for said in (b'{"token": "\xc3\xa9"}\n', b'{"token": "\\ud800"}\n', b"[" * 100_000 + b"\n", b"x" * 200_000):
        near, far = socket.socketpair()
        wire = Wire(near, 150_000)
        thread = threading.Thread(target=send, args=(far, said))
        thread.start()
        messages = []
        while not messages and wire.is_open:
            messages = wire.receive()
        assert not messages or not greet(wire, messages[0], "5eed")
        wire.close()
        thread.join()
        far.close()


def send(connection: socket.socket, text: bytes) -> None:
    with contextlib.suppress(OSError):
        connection.sendall(text)
