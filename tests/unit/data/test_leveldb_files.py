"""The tables that a MANIFEST names."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paratrain.data.leveldb_files import table_sizes
from paratrain.errors import DataError


def varint(value):
    encoded = b""
    while value > 127:
        encoded, value = encoded + bytes([value % 128 + 128]), value // 128
    return encoded + bytes([value])


def edit(deleted=(), added=(), key=b""):
    """A record of a MANIFEST, as LevelDB writes it: numbers first, then what is deleted, then what is new."""
    text = varint(1) + varint(3) + b"abc" + varint(2) + varint(7) + varint(9) + varint(0) + varint(3) + varint(10**9)
    text += varint(4) + varint(2**50) + varint(5) + varint(2) + varint(len(key)) + key
    for level, number in deleted:
        text += varint(6) + varint(level) + varint(number)
    for level, number, size in added:
        text += varint(7) + varint(level) + varint(number) + varint(size) + 2 * (varint(len(key)) + key)
    return text


def log(records):
    """LevelDB's log format: blocks of 32 KiB, no header across their border, records in as many parts as it takes."""
    written = b""
    for record in records:
        begun = False
        while True:
            left = 32768 - len(written) % 32768
            if left < 7:
                written += bytes(left)
                continue
            part, record = record[: left - 7], record[left - 7 :]
            kind = {(False, True): 1, (False, False): 2, (True, False): 3, (True, True): 4}[begun, not record]
            written += struct.pack("<IHB", 0, len(part), kind) + part
            begun = True
            if not record:
                break
    return written


steps = st.lists(
    st.tuples(st.booleans(), st.integers(0, 6), st.integers(1, 10**6), st.integers(0, 2**40), st.integers(0, 40_000)),
    max_size=12,
)


@given(steps)
def test_the_tables_that_are_left_at_the_end(steps):
    left, records = {}, []
    for delete, level, number, size, key_bytes in steps:
        deleted = list(left)[:1] if delete else []
        for place in deleted:
            del left[place]
        if number not in [known for _, known in left]:
            left[level, number] = size
            records.append(edit(deleted, [(level, number, size)], bytes(key_bytes)))
        else:
            records.append(edit(deleted, [], bytes(key_bytes)))
    written = log(records)
    wanted = {number: size for (_, number), size in left.items()}
    assert table_sizes(written) == wanted
    torn = log([*records, edit(added=[(0, 5, 5)])])[:-3]
    assert table_sizes(torn) == wanted, "what a crash cut off does not count"


def test_a_table_may_move_to_another_level():
    assert table_sizes(log([edit(added=[(0, 5, 700)]), edit([(0, 5)], [(1, 5, 700)])])) == {5: 700}


@pytest.mark.parametrize("record", [varint(77), varint(7) + varint(1), varint(2) + b"\xff\xff"])
def test_records_that_make_no_sense(record):
    with pytest.raises(DataError, match="MANIFEST is damaged"):
        table_sizes(log([record]))
