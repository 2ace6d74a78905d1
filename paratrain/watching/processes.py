"""Processes of this host, held so that no later one of the same number is taken for them."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal

__all__ = ["is_gone", "kill", "open_process"]


def open_process(process: int) -> int | None:
    """A descriptor that becomes readable when the process ends; None if it has, or where there are no such descriptors."""
    try:
        return os.pidfd_open(process)
    except (OSError, AttributeError):  # gone; or a kernel, or a build of Python, before 5.3
        return None


def is_gone(descriptor: int) -> bool:
    """Whether the process behind a descriptor of :func:`open_process` has ended."""
    with selectors.PollSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        return bool(selector.select(0))


def kill(process: int, descriptor: int | None, number: signal.Signals = signal.SIGKILL) -> None:
    """Send a process a signal, if it is still there."""
    with contextlib.suppress(OSError):
        if descriptor is not None and hasattr(signal, "pidfd_send_signal"):
            signal.pidfd_send_signal(descriptor, number)
        else:
            os.kill(process, number)
