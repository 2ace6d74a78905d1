"""Two hosts on one machine: network namespaces with names and addresses of their own, and one link between them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Traffic", "TwoHosts", "two_hosts"]

RANKS_PER_HOST = 2
_UNSHARE = ("unshare", "--uts")
_DEVICE = "eth0"  # the same in both, so that UCX_NET_DEVICES can name it
_ADDRESSES = ("10.213.77.1", "10.213.77.2")
# Deep enough for what TCP hands over in one piece, shallow enough that a short transfer shows the rate.
_BURST, _LATENCY = "256kb", "50ms"
_CARRIER_S = 10.0
# UCX must not find the memory that these hosts do share.
_MPI_ENVIRONMENT = {"UCX_TLS": "tcp,self", "UCX_NET_DEVICES": _DEVICE}


@dataclass(frozen=True)
class Traffic:
    """What the interface of one host has counted: bytes and packets, each (received, sent)."""

    bytes: tuple[int, int]
    packets: tuple[int, int]


class TwoHosts:
    """Two namespaces, and how to start ranks on them. Made by :func:`two_hosts`."""

    def __init__(self, names: Sequence[str], folder: Path) -> None:
        self.names = tuple(names)
        self._enter = folder / "enter"
        # The second host has processes of its own, so that nobody there finds the launcher among his parents.
        self._keeper = subprocess.Popen(
            ["ip", "netns", "exec", names[1], *_UNSHARE, "--pid", "--fork", "--kill-child", "--mount-proc",
             "sh", "-c", 'hostname "$0" && echo ready && exec sleep infinity', names[1]],
            stdout=subprocess.PIPE,
        )  # fmt: skip
        assert self._keeper.stdout is not None
        assert self._keeper.stdout.readline() == b"ready\n", "the second host has not come up"
        self._kept: set[int] = set()
        self._kept = set(self.processes(1))
        [first] = [process for process in self._kept if process != self._keeper.pid]
        # mpirun calls it as rsh: the host, then words of a command line, some of them quoted.
        self._enter.write_text(
            f'#!/bin/sh\n[ "$1" = {_ADDRESSES[1]} ] || exit 1\nshift\n'
            f"exec nsenter --target {first} --net --uts --pid --mount "
            'sh -c \'cd "$0" && eval "exec $*"\' "$PWD" "$@"\n'
        )
        self._enter.chmod(0o755)

    def close(self) -> None:
        """End what keeps the second host."""
        self.kill_all()
        self._keeper.kill()
        self._keeper.wait()

    def mpirun(self, mpirun: str) -> list[str]:
        """MPICH's launcher, run on the first host, with two ranks on each."""
        hosts = ",".join(f"{address}:{RANKS_PER_HOST}" for address in _ADDRESSES)
        settings = [f"{name}={value}" for name, value in _MPI_ENVIRONMENT.items()]
        rsh = ["-launcher", "rsh", "-launcher-exec", str(self._enter), "-hosts", hosts]
        # fmt: off
        return [
            *self.on(0), *_UNSHARE, "sh", "-c", 'hostname "$0"; exec "$@"', self.names[0],
            "env", *settings, mpirun, *rsh, "-n", str(2 * RANKS_PER_HOST),
        ]
        # fmt: on

    def on(self, host: int) -> list[str]:
        """The words in front of a command that is to run on a host."""
        return ["ip", "netns", "exec", self.names[host]]

    def traffic(self, host: int) -> Traffic:
        """What the host's interface has counted so far."""
        [found] = json.loads(_run("ip", "-n", self.names[host], "-json", "-s", "link", "show", _DEVICE))
        received, sent = (found["stats64"][way] for way in ("rx", "tx"))
        return Traffic((received["bytes"], sent["bytes"]), (received["packets"], sent["packets"]))

    def address(self, host: int) -> str:
        """The host's address on the link."""
        return _ADDRESSES[host]

    def cut(self) -> None:
        """Take the link away, as a pulled cable does: its other end sees no carrier."""
        _run("ip", "-n", self.names[1], "link", "set", _DEVICE, "down")

    def processes(self, host: int) -> list[int]:
        """The processes that run on a host."""
        found = {int(word) for word in _run("ip", "netns", "pids", self.names[host]).split()}
        return sorted(found - self._kept)

    def join(self) -> None:
        """Bring the link up, and wait until both ends say so: programs pass over an interface without a carrier."""
        for name in self.names:
            _run("ip", "-n", name, "link", "set", _DEVICE, "up")
        deadline = time.monotonic() + _CARRIER_S
        while any(self._state(name) != "UP" for name in self.names):
            assert time.monotonic() < deadline, f"the link is not up after {_CARRIER_S:.0f} s"
            time.sleep(0.05)

    def kill_all(self) -> int:
        """SIGKILL whatever still runs on the hosts; return how many processes that were."""
        found = [process for host in range(len(self.names)) for process in self.processes(host)]
        for process in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        return len(found)

    @staticmethod
    def _state(name: str) -> str:
        [found] = json.loads(_run("ip", "-n", name, "-json", "link", "show", _DEVICE))
        return str(found["operstate"])


@contextlib.contextmanager
def two_hosts(folder: Path, *, gbit_per_s: float = 1.0, mtu: int = 1500, offload: bool = True) -> Iterator[TwoHosts]:
    """Two hosts, joined by a link of ``gbit_per_s`` in each direction; they and their processes go when the block ends.

    ``offload`` lets the kernel pass on pieces of up to 64 KiB, as network cards take them: then the counters see one header
    for each piece. Without, every packet is one of ``mtu``, with a header each. ``folder`` takes a small script.
    """
    names = [f"paratrain-{os.getpid()}-{letter}" for letter in "ab"]
    made: list[str] = []
    hosts = None
    try:
        for name in names:
            _run("ip", "netns", "add", name)
            made.append(name)
        ends = [[_DEVICE, "netns", name] for name in names]
        _run("ip", "link", "add", *ends[0], "type", "veth", "peer", "name", *ends[1])
        for name, address in zip(names, _ADDRESSES, strict=True):
            segments = [] if offload else ["gso_max_segs", "1", "gso_max_size", str(mtu)]
            _run("ip", "-n", name, "link", "set", _DEVICE, "mtu", str(mtu), *segments)
            _run("ip", "-n", name, "address", "add", f"{address}/24", "dev", _DEVICE)
            _run("ip", "-n", name, "link", "set", "lo", "up")
            limit = ["tbf", "rate", f"{gbit_per_s * 1000:.0f}mbit", "burst", _BURST, "latency", _LATENCY]
            _run("tc", "-n", name, "qdisc", "add", "dev", _DEVICE, "root", *limit)
        hosts = TwoHosts(names, folder)
        hosts.join()
        yield hosts
    finally:
        if hosts is not None:
            hosts.close()
        for name in made:
            _run("ip", "netns", "delete", name)


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr.strip()}"
    return done.stdout
