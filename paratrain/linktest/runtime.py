"""What the test of GPU links asks of CUDA: a dozen calls, behind which a fake can stand."""

from __future__ import annotations

import importlib
from typing import Protocol

__all__ = ["DEFAULT_RUNTIME", "Runtime", "open_runtime"]

DEFAULT_RUNTIME = "paratrain.linktest.cuda:CupyRuntime"


class Runtime(Protocol):
    """One process's view of one GPU and of one stream on it.

    Addresses are numbers; `copy` takes those of this GPU's memory, of opened memory of another process, and of pinned host
    memory, and only starts the copy. Any exception is the failure of the call.
    """

    def select(self, bus_id: str, index: int) -> None:
        """Use the GPU with this PCI bus id from now on; where it is empty, CUDA's GPU of this number."""

    def allocate(self, byte_count: int) -> int:
        """The address of a block of its own on the GPU, which other processes may open."""

    def free(self, address: int) -> None:
        """Give the block back."""

    def export_block(self, address: int) -> bytes:
        """A handle by which another process can open the block."""

    def open_block(self, handle: bytes) -> int:
        """The address of another process's block in this one; its GPU becomes a peer of this one."""

    def close_block(self, address: int) -> None:
        """Give the address back."""

    def pin(self, address: int, byte_count: int) -> None:
        """Pin host memory that is there already."""

    def unpin(self, address: int) -> None:
        """The reverse of `pin`."""

    def copy(self, destination: int, source: int, byte_count: int) -> None:
        """Start a copy on the stream."""

    def fill(self, address: int, value: int, byte_count: int) -> None:
        """Start setting bytes to a value, on the stream."""

    def new_event(self) -> int:
        """An event that other processes may open."""

    def export_event(self, event: int) -> bytes:
        """A handle by which another process can open the event."""

    def open_event(self, handle: bytes) -> int:
        """Another process's event."""

    def record(self, event: int) -> None:
        """Record the event on the stream."""

    def wait_for(self, event: int) -> None:
        """Let the stream wait for the newest record of the event."""

    def synchronize(self) -> None:
        """Return when the stream has done all it was given."""


def open_runtime(name: str) -> Runtime:
    """The runtime that ``module:Class`` names; it is made without arguments."""
    module, _, attribute = name.partition(":")
    runtime: Runtime = getattr(importlib.import_module(module), attribute)()
    return runtime
