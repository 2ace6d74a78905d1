"""Messages between watchers: JSON, one to a line, over sockets that never make the sender wait."""

from __future__ import annotations

import contextlib
import json
import socket
from typing import Any

__all__ = ["LONGEST_BYTES", "Wire"]

Message = dict[str, Any]
_PIECE_BYTES = 64 * 1024
LONGEST_BYTES = 16 * 1024 * 1024


class Wire:
    """A connection. ``is_open`` is False once the other side has closed it, does not take what is sent, or sends what is
    no message, or one of more than ``longest_bytes``.
    """

    def __init__(self, connection: socket.socket, longest_bytes: int = LONGEST_BYTES) -> None:
        connection.setblocking(False)
        if connection.family in (socket.AF_INET, socket.AF_INET6):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = connection
        self.is_open = True
        self.longest_bytes = longest_bytes
        self._received = bytearray()
        self._unsent = bytearray()

    def fileno(self) -> int:
        """For selectors."""
        return self.socket.fileno()

    def send(self, message: Message) -> None:
        """Send it, or keep what does not fit yet for the next call."""
        if not self.is_open:
            return
        self._unsent += self.encode(message)
        try:
            while self._unsent:
                del self._unsent[: self.socket.send(self._unsent)]
        except BlockingIOError:
            self.is_open = len(self._unsent) < LONGEST_BYTES
        except OSError:
            self.is_open = False

    def receive(self) -> list[Message]:
        """What has come since the last call."""
        try:
            while self.is_open:
                piece = self.socket.recv(_PIECE_BYTES)
                if not piece:
                    self.is_open = False
                self._received += piece
                self.is_open = self.is_open and len(self._received) < self.longest_bytes
        except BlockingIOError:
            pass
        except OSError:
            self.is_open = False
        *lines, rest = bytes(self._received).split(b"\n")
        self._received = bytearray(rest)
        messages = []
        for line in lines:
            try:
                messages.append(self.parse(line))
            except ValueError:  # nobody of ours
                self.is_open = False
                break
        return messages

    @staticmethod
    def encode(message: Message) -> bytes:
        """The message as a line."""
        return json.dumps(message).encode() + b"\n"

    @staticmethod
    def parse(text: bytes) -> Message:
        """The message of one line; ValueError where it is none."""
        try:
            message = json.loads(text)
        except RecursionError:  # brackets within brackets
            raise ValueError("not a message") from None
        if not isinstance(message, dict):
            raise ValueError("not a message")
        return message

    def close(self) -> None:
        """Close the connection."""
        self.is_open = False
        with contextlib.suppress(OSError):
            self.socket.close()
