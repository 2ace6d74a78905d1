"""What the files of /proc and /sys say; empty where a system does not have them."""

from __future__ import annotations

from pathlib import Path

__all__ = ["link_target", "text_of"]


def text_of(path: Path) -> str:
    """The text of a file, stripped; empty where it cannot be read."""
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def link_target(path: Path) -> str:
    """What a symbolic link names, which need not exist; empty where there is no link."""
    try:
        return str(path.readlink())
    except OSError:
        return ""
