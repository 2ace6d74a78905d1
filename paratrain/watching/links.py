"""Connections between the helpers of different hosts: the hub listens, the others come to it.

Both sides prove that they know the job's token, which is never sent: each answers a number that the other has drawn.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import queue
import secrets
import socket
import threading
import time
from collections.abc import Sequence
from typing import Any

from paratrain.watching.wire import Wire

__all__ = ["Greeting", "HubSearch", "listen", "ways_to"]

_TRY_S = 3.0
_ALL_S = 30.0
_PAUSE_S = 1.0
_LONGEST_ANSWER = 1000


def listen() -> socket.socket:
    """A socket on all addresses of this host, at a port of the system's choice."""
    if socket.has_dualstack_ipv6():
        with contextlib.suppress(OSError):
            return socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", 0))


def ways_to(hub: dict[str, Any], own_host: str) -> list[str]:
    """The addresses of the hub's host at which a helper on another one looks for it.

    Loopback leads to the hub only from beside it; elsewhere, somebody else may listen there.
    """
    is_beside = hub.get("host", own_host) == own_host
    return [address for address in hub["addresses"] if is_beside or not address.startswith("127.")]


class Greeting:
    """The hub's side of one connection, before it knows who is there.

    The helper says who it is, with a number of its own; the hub answers it by the proof that it knows the token, with another
    number; the helper proves the same, and is welcomed.
    """

    def __init__(self, token: str) -> None:
        self._token = token
        self._number = _draw()
        self.hello: dict[str, Any] = {}

    def answer(self, wire: Wire, message: dict[str, Any]) -> bool:
        """Answer a message; return whether the helper, which has introduced itself by ``hello``, is welcome now.

        Raises ValueError for anybody else.
        """
        if not self.hello:
            self.hello = {"number": "", **message}
            proof = _proof(self._token, "hub", self.hello, self._number)
            wire.send({"kind": "proof", "proof": proof, "number": self._number})
            return False
        _check(message, _proof(self._token, "helper", self.hello, self._number))
        wire.send({"kind": "welcome"})
        return True


def _draw() -> str:
    return secrets.token_hex(16)


def _proof(token: str, side: str, hello: dict[str, Any], number: str) -> str:
    """What only who knows the token can say on this side of a connection, on which these two have been sent."""
    words = json.dumps([side, hello, number], sort_keys=True)
    return hmac.new(token.encode(), words.encode(), "sha256").hexdigest()


def _check(message: dict[str, Any], proof: str) -> None:
    if not hmac.compare_digest(str(message.get("proof", "")).encode(errors="replace"), proof.encode()):
        raise ValueError("another program answers")


class HubSearch:
    """Looks for the hub at its addresses, one after the other, in a thread. The result is in ``found``: a connection, or why
    there is none after ``within_s``.

    ``hello`` says who this helper is.
    """

    def __init__(
        self, addresses: Sequence[str], port: int, hello: dict[str, Any], token: str, within_s: float = _ALL_S
    ) -> None:
        self.found: queue.SimpleQueue[Wire | str] = queue.SimpleQueue()
        self._token = token
        arguments = (addresses, port, hello, time.monotonic() + within_s)
        threading.Thread(target=self._run, args=arguments, daemon=True, name="search").start()

    def _run(self, addresses: Sequence[str], port: int, hello: dict[str, Any], until: float) -> None:
        problems: dict[str, str] = {}
        while True:
            for address in addresses:
                try:
                    self.found.put(_try(address, port, hello, self._token))
                    return
                except (OSError, ValueError) as error:
                    problems[address] = str(error)
            if time.monotonic() + _PAUSE_S > until:
                break
            time.sleep(_PAUSE_S)
        tried = "; ".join(f"{address}: {problem}" for address, problem in problems.items())
        self.found.put(f"port {port} of rank 0's host does not answer ({tried})")


def _try(address: str, port: int, hello: dict[str, Any], token: str) -> Wire:
    connection = socket.create_connection((address, port), _TRY_S)
    try:
        answers = connection.makefile("rb", buffering=0)  # unbuffered: what follows is read by the Wire
        hello = {**hello, "number": _draw()}
        connection.sendall(Wire.encode(hello))
        answer = Wire.parse(answers.readline(_LONGEST_ANSWER))
        number = str(answer.get("number", ""))
        _check(answer, _proof(token, "hub", hello, number))
        connection.sendall(Wire.encode({"kind": "proof", "proof": _proof(token, "helper", hello, number)}))
        if Wire.parse(answers.readline(_LONGEST_ANSWER)).get("kind") != "welcome":
            raise ValueError("another program answers")
        connection.sendall(Wire.encode({"kind": "here"}))  # the hub does not count on one that has given up waiting
    except BaseException:
        connection.close()
        raise
    return Wire(connection)
