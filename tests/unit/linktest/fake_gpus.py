"""GPUs that are files: blocks really are moved between processes, and chosen links do it badly.

The environment variable FAKE_GPUS names a folder with `faults.json`: {"0-1": "corrupt", ...} from the sender to the receiver.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

import numpy as np

RUNTIME = "tests.unit.linktest.fake_gpus:FakeRuntime"
SLOW_S = 0.2
HOST_S = 0.02  # for each half of the way of many bytes through the host, so that direct copies are faster


class FakeError(Exception):
    """What a failing call raises, as CUDA's error would."""


class FakeRuntime:
    """See `paratrain.linktest.runtime.Runtime`. A block is a mapped file; its handle is the name of the file."""

    def __init__(self) -> None:
        self.folder = Path(os.environ["FAKE_GPUS"])
        self.faults: dict[str, str] = json.loads((self.folder / "faults.json").read_text())
        self.index = -1
        self.blocks: dict[int, tuple[Path, mmap.mmap]] = {}
        self.peers: dict[int, int] = {}
        self.ranges: list[tuple[int, int]] = []
        self.waiting: list[tuple[int, int, int]] = []

    def select(self, bus_id: str, index: int) -> None:
        self.index = int(bus_id) if bus_id else index
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        if visible is not None and str(self.index) not in visible.split(","):
            raise FakeError("cudaErrorInvalidDevice")
        if self.faults.get(f"select {self.index}") == "raise":
            raise FakeError("cudaErrorDevicesUnavailable")
        if self.faults.get(f"select {self.index}") == "die":
            os._exit(3)

    def allocate(self, byte_count: int) -> int:
        path = self.folder / f"{self.index}-{uuid.uuid4().hex}"
        path.write_bytes(os.urandom(64) * (byte_count // 64 + 1))
        return self.map(path)

    def map(self, path: Path) -> int:
        with path.open("r+b") as file:
            memory = mmap.mmap(file.fileno(), 0)
        address = np.frombuffer(memory, np.uint8).ctypes.data
        self.blocks[address] = path, memory
        self.ranges.append((address, address + len(memory)))
        return address

    def free(self, address: int) -> None:
        path, _ = self.blocks.pop(address)
        path.unlink()

    def export_block(self, address: int) -> bytes:
        return self.blocks[address][0].name.encode().ljust(64, b"\0")

    def open_block(self, handle: bytes) -> int:
        name = handle.rstrip(b"\0").decode()
        owner = int(name.split("-")[0])
        if self.faults.get(f"{self.index}-{owner}") == "refuse":
            raise FakeError("cudaErrorPeerAccessUnsupported")
        if len({*self.peers.values(), owner}) > int(self.faults.get("peers", "8")):
            raise FakeError("cudaErrorTooManyPeers")
        address = self.map(self.folder / name)
        self.peers[address] = owner
        return address

    def close_block(self, address: int) -> None:
        del self.blocks[address], self.peers[address]

    def pin(self, address: int, byte_count: int) -> None:
        if self.faults.get("pin") == "raise":
            raise FakeError("cudaErrorNotSupported")
        self.ranges.append((address, address + byte_count))

    def unpin(self, address: int) -> None:
        assert address in {first for first, _ in self.ranges}

    def copy(self, destination: int, source: int, byte_count: int) -> None:
        """One of the two has to be known to the GPU, and to its end; the copy is made when somebody waits for it."""
        assert any(
            first <= address and address + byte_count <= last
            for address in (destination, source)
            for first, last in self.ranges
        )
        self.waiting.append((destination, source, byte_count))

    def fill(self, address: int, value: int, byte_count: int) -> None:
        self.synchronize()
        ctypes.memset(address, value, byte_count)

    def new_event(self) -> int:
        return 1

    def export_event(self, event: int) -> bytes:
        return bytes([event]) * 64

    def open_event(self, handle: bytes) -> int:
        return handle[0]

    def record(self, event: int) -> None:
        assert event == 1

    def wait_for(self, event: int) -> None:
        assert event == 1

    def synchronize(self) -> None:
        peers = {self.peers[destination] for destination, _, _ in self.waiting if destination in self.peers}
        for destination, source, byte_count in self.waiting:
            peer = self.peers.get(destination)
            fault = "" if peer is None else self.faults.get(f"{self.index}-{peer}", "")
            self.move(destination, source, byte_count, fault, crowded=len(peers) > 1)
        self.waiting.clear()

    def move(self, destination: int, source: int, byte_count: int, fault: str, *, crowded: bool) -> None:
        if fault == "hang":
            subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])  # a child that must not be left
            time.sleep(600)
        if fault == "raise":
            raise FakeError("cudaErrorIllegalAddress")
        if fault == "die":
            os.abort()
        if byte_count > 1 << 22:
            time.sleep(SLOW_S if fault == "slow" else 0.0 if destination in self.peers else HOST_S)
        if fault == "lose":  # a posted write that is dropped gives no error
            return
        ctypes.memmove(destination, source, byte_count)
        if fault == "corrupt" or (fault == "crowded" and crowded):
            ctypes.memset(destination + byte_count - 1, ~ctypes.string_at(source + byte_count - 1, 1)[0] & 0xFF, 1)
        if fault == "overrun":
            ctypes.memset(destination + byte_count, 0, 1)
