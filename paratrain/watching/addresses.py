"""The addresses of this host at which others may reach it."""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import socket
import struct
from pathlib import Path

__all__ = ["own_addresses"]

_GET_ADDRESS = 0x8915  # SIOCGIFADDR


def own_addresses() -> list[str]:
    """IPv4 and global IPv6 addresses of the interfaces, this host's own loopback first (for helpers beside each other)."""
    found = ["127.0.0.1"]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode()[:15])
            with contextlib.suppress(OSError):  # no IPv4 address
                found.append(socket.inet_ntoa(fcntl.ioctl(probe.fileno(), _GET_ADDRESS, request)[20:24]))
    with contextlib.suppress(OSError):
        for line in Path("/proc/net/if_inet6").read_text().splitlines():
            address = ipaddress.IPv6Address(bytes.fromhex(line.split()[0]))
            if not address.is_link_local and not address.is_loopback:
                found.append(str(address))
    return list(dict.fromkeys(found))
