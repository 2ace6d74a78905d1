"""Connections between the helpers of different hosts: the hub listens, the others come to it."""

from __future__ import annotations

import contextlib
import hmac
import queue
import socket
import threading
import time
from collections.abc import Sequence
from typing import Any

from paratrain.watching.wire import Wire

__all__ = ["HubSearch", "greet", "listen"]

_TRY_S = 3.0
_ALL_S = 30.0
_PAUSE_S = 1.0


def listen() -> socket.socket:
    """A socket on all addresses of this host, at a port of the system's choice."""
    if socket.has_dualstack_ipv6():
        with contextlib.suppress(OSError):
            return socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", 0))


def greet(wire: Wire, message: dict[str, Any], token: str) -> bool:
    """On the hub: answer a helper's first message; False for anybody else's."""
    given = str(message.get("token", "")).encode(errors="replace")
    if not hmac.compare_digest(given, token.encode()):
        return False
    wire.send({"kind": "welcome"})
    return True


class HubSearch:
    """Looks for the hub at its addresses, one after the other, in a thread. The result is in ``found``: a connection, or why
    there is none after ``within_s``.
    """

    def __init__(self, addresses: Sequence[str], port: int, hello: dict[str, Any], within_s: float = _ALL_S) -> None:
        self.found: queue.SimpleQueue[Wire | str] = queue.SimpleQueue()
        arguments = (addresses, port, hello, time.monotonic() + within_s)
        threading.Thread(target=self._run, args=arguments, daemon=True, name="search").start()

    def _run(self, addresses: Sequence[str], port: int, hello: dict[str, Any], until: float) -> None:
        problems: dict[str, str] = {}
        while True:
            for address in addresses:
                try:
                    self.found.put(_try(address, port, hello))
                    return
                except (OSError, ValueError) as error:
                    problems[address] = str(error)
            if time.monotonic() + _PAUSE_S > until:
                break
            time.sleep(_PAUSE_S)
        tried = "; ".join(f"{address}: {problem}" for address, problem in problems.items())
        self.found.put(f"port {port} of rank 0's host does not answer ({tried})")


def _try(address: str, port: int, hello: dict[str, Any]) -> Wire:
    connection = socket.create_connection((address, port), _TRY_S)
    try:
        connection.sendall(Wire.encode(hello))
        answer = connection.makefile("rb", buffering=0).readline(1000)  # unbuffered: what follows is read by the Wire
        if Wire.parse(answer).get("kind") != "welcome":
            raise ValueError("another program answers")
        connection.sendall(Wire.encode({"kind": "here"}))  # the hub does not count on one that has given up waiting
    except BaseException:
        connection.close()
        raise
    return Wire(connection)
