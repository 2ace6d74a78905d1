"""Reading many small raw Datums at once, without parsing each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from paratrain.proto import Datum

__all__ = ["DatumLayout"]

Pixels = npt.NDArray[Any]

_DATA_TAG = b"\x22"  # field 4, of a given length
_MOST_VALUES = 1 << 14  # of larger images parsing is a small part
_KEPT_ENDS = 1 << 16


class DatumLayout:
    """How the raw Datums of a database lie in their bytes, as far as they are like one that has been parsed.

    The bytes of a Datum are its fields, one after the other. Caffe's writers put ``channels, height, width, data`` first:
    what precedes the pixels is the same in all records of one size. What follows them, the label, is a short message by
    itself; each different one is parsed once. A record that begins otherwise, or has other fields at its end, is not
    read here: so what is read is what parsing would have given.
    """

    def __init__(self, start: bytes, shape: tuple[int, int, int]) -> None:
        self._start = start
        self._shape = shape
        self._end = len(start) + shape[0] * shape[1] * shape[2]
        self._labels: dict[bytes, int] = {}  # by what follows the pixels

    @classmethod
    def of(cls, value: bytes, datum: Datum) -> DatumLayout | None:
        """The layout of the record ``value``, which was parsed as ``datum``; None where it has none, or it would not pay."""
        count = len(datum.data)
        shape = (datum.channels, datum.height, datum.width)
        if datum.encoded or not 0 < count <= _MOST_VALUES or min(shape) <= 0 or count != shape[0] * shape[1] * shape[2]:
            return None
        sizes = Datum(channels=shape[0], height=shape[1], width=shape[2])
        start = sizes.SerializeToString() + _DATA_TAG + _varint(count)
        return cls(start, shape) if value.startswith(start) else None

    def read(self, values: Sequence[bytes]) -> tuple[Pixels, list[int]] | None:
        """Return pixels (N, C, H, W) uint8 and labels of N records, or None where one of them is not of this layout."""
        start, end = self._start, self._end
        lengths = set(map(len, values))
        if min(lengths) < end or not all(value.startswith(start) for value in values):
            return None
        known = self._labels
        labels = []
        for value in values:
            rest = value[end:]
            label = known.get(rest)
            if label is None:
                label = _parse_end(rest)
                if label is None:
                    return None
                if len(known) < _KEPT_ENDS:
                    known[rest] = label
            labels.append(label)
        if len(lengths) > 1:
            values, start, end = [value[len(start) : end] for value in values], b"", end - len(start)
        rows = np.frombuffer(b"".join(values), np.uint8).reshape(len(values), -1)
        return rows[:, len(start) : end].reshape(-1, *self._shape), labels


def _parse_end(rest: bytes) -> int | None:
    """The label in what follows the pixels; None where there is more than a label there."""
    try:
        datum = Datum.FromString(rest)
    except DecodeError:
        return None
    if datum.encoded or any(field.name not in ("label", "encoded") for field, _ in datum.ListFields()):
        return None
    return datum.label


def _varint(value: int) -> bytes:
    """``value`` as protobuf writes lengths: 7 bits a byte, the lowest first."""
    encoded = bytearray()
    while value >= 128:
        encoded.append(value & 127 | 128)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
