"""Which files make up a LevelDB, and a private view of them that can be opened without touching the database.

LevelDB has no way to open a database only for reading: opening one takes a lock that a second process is refused, writes
a new MANIFEST and LOG, rewrites the journal as tables and deletes the files that became superfluous. So each process
opens a folder of its own: copies of the small files that LevelDB writes to, and symbolic links to the tables, which it
reads and unlinks but never changes. Only the tables that the MANIFEST names are linked: the numbers of new files start
above theirs, so that nothing is ever written through a link.

The formats are those of LevelDB's log_format.h and version_edit.cc.
"""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path

from paratrain.errors import DataError

__all__ = ["make_view", "table_sizes"]

_BLOCK_BYTES = 1 << 15
_HEADER = struct.Struct("<IHB")  # checksum, length, kind
_FULL, _FIRST, _LAST = 1, 2, 4


def make_view(database: Path, view: Path) -> None:
    """Fill the empty folder ``view`` with what LevelDB needs to open the database without touching it.

    Raises DataError if ``database`` is no LevelDB, or tables are missing or cut off; OSError as the system does.
    """
    manifest = _manifest(database)
    for file in (database / "CURRENT", manifest, *database.glob("*.log")):
        shutil.copyfile(file, view / file.name)
    # The copy is read: the database may be in use, and then its own has grown.
    for number, wanted_bytes in table_sizes((view / manifest.name).read_bytes()).items():
        names = [f"{number:06d}.ldb", f"{number:06d}.sst"]
        table = next((path for name in names if (path := database / name).is_file()), None)
        if table is None:
            raise DataError(f"{names[0]} is missing; copy or write the database again")
        found_bytes = table.stat().st_size
        if found_bytes < wanted_bytes:
            raise DataError(
                f"cut off: {table.name} should have {wanted_bytes:,} bytes and has {found_bytes:,}. "
                "Copy or write the database again"
            )
        if not os.access(table, os.R_OK):
            raise DataError(f"{table.name} may not be read by this user")
        (view / table.name).symlink_to(table.resolve())


def _manifest(database: Path) -> Path:
    name = (database / "CURRENT").read_text(encoding="ascii", errors="replace").strip()
    manifest = database / name
    if not name.startswith("MANIFEST-") or manifest.parent != database:
        raise DataError(f"damaged: CURRENT names '{name[:40]}', not a MANIFEST")
    if not manifest.is_file():
        raise DataError(f"damaged: {name}, which CURRENT names, is missing")
    return manifest


def table_sizes(manifest: bytes) -> dict[int, int]:
    """Return number and size in bytes of each table of the database that a MANIFEST describes. Raises DataError if it is
    damaged.
    """
    tables: dict[tuple[int, int], int] = {}  # (level, number): bytes
    try:
        for record in _records(manifest):
            deleted, added = _parse_edit(record)
            for place in deleted:
                tables.pop(place, None)
            tables.update(added)
    except (IndexError, ValueError):
        raise DataError("the MANIFEST is damaged; copy or write the database again") from None
    return {number: size for (_, number), size in tables.items()}


def _records(log: bytes) -> Iterator[bytes]:
    """Yield the records of a file in LevelDB's log format; a last one that is cut off is left out, as LevelDB does."""
    position, parts = 0, [b""]
    while position + _HEADER.size <= len(log):
        left = _BLOCK_BYTES - position % _BLOCK_BYTES
        _, length, kind = _HEADER.unpack_from(log, position) if left >= _HEADER.size else (0, 0, 0)
        if kind == 0:  # what is left of a block
            position += left
            continue
        start, position = position + _HEADER.size, position + _HEADER.size + length
        if position > len(log):
            return
        if kind in (_FULL, _FIRST):
            parts = []
        parts.append(log[start:position])
        if kind in (_FULL, _LAST):
            yield b"".join(parts)


def _parse_edit(record: bytes) -> tuple[list[tuple[int, int]], dict[tuple[int, int], int]]:
    """Return (level, number) of each table that one record of a MANIFEST deletes, and that it adds, with its size."""
    deleted, added = [], {}
    position = 0

    def number() -> int:
        nonlocal position
        value = shift = 0
        while True:
            byte = record[position]
            position += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7

    def skip_string() -> None:
        nonlocal position
        length = number()
        position += length

    while position < len(record):
        tag = number()
        if tag == 1:  # the comparator's name
            skip_string()
        elif tag in (2, 3, 4, 9):  # numbers of journals, of the next file, of the last write
            number()
        elif tag == 5:  # where the next compaction starts: level, key
            number()
            skip_string()
        elif tag == 6:
            deleted.append((number(), number()))
        elif tag == 7:  # level, number, size, smallest and largest key
            place = (number(), number())
            added[place] = number()
            skip_string()
            skip_string()
        else:
            raise ValueError(f"unknown tag {tag}")
    return deleted, added
