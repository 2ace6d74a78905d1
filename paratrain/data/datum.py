"""Between Datum, the record of Caffe's databases, and arrays of pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from paratrain.data import images
from paratrain.errors import DataError
from paratrain.proto import Datum

__all__ = ["array_to_datum", "datum_to_array", "parse_datum"]

Pixels = npt.NDArray[Any]


def parse_datum(value: bytes) -> Datum:
    """Read the bytes of a record. Raises DataError if they are not a Datum."""
    try:
        return Datum.FromString(value)
    except DecodeError:
        raise DataError(f"{len(value):,} bytes that are not a Datum; was this database written for Caffe?") from None


def datum_to_array(datum: Datum, color: bool | None = None) -> Pixels:
    """Return the pixels of a Datum, (C, H, W): uint8 (channels B, G, R of colour images), or float32 of ``float_data``.

    Raw pixels are a read-only view of the Datum's bytes. Encoded images are decoded, to 3 channels or 1 where
    ``color`` is True or False. Raises DataError if the values do not fit channels x height x width, or the image
    cannot be decoded.
    """
    data = datum.data
    if datum.encoded:
        return images.decode(data, color=color)
    channels, height, width = shape = (datum.channels, datum.height, datum.width)
    count = channels * height * width
    if len(data) == count and channels > 0 and height > 0 and width > 0:
        pixels: Pixels = np.ndarray(shape, np.uint8, data)
        return pixels
    found = len(data) or len(datum.float_data)
    if data or found != count or min(shape) <= 0:
        raise DataError(
            f"a Datum of channels {channels}, height {height}, width {width} should hold {count:,} values "
            f"and holds {found:,}{_hint(data, found)}"
        )
    return np.fromiter(datum.float_data, np.float32, count).reshape(shape)


def _hint(data: bytes, found: int) -> str:
    if data.startswith((b"\xff\xd8\xff", b"\x89PNG")):
        return "; it looks like a compressed image: its field 'encoded' should be true"
    return "; is the record a Datum at all?" if found == 0 else "; the record is damaged, or no Datum"


def array_to_datum(pixels: npt.ArrayLike, label: int = 0) -> Datum:
    """Store pixels (C, H, W) in a new Datum: uint8 as ``data``, everything else as ``float_data``. pycaffe has it too.

    Raises ValueError if the array does not have three axes.
    """
    array = np.asarray(pixels)
    if array.ndim != 3:
        raise ValueError(f"a Datum holds (C, H, W); the array has the shape {array.shape}")
    datum = Datum(channels=array.shape[0], height=array.shape[1], width=array.shape[2], label=label)
    if array.dtype == np.uint8:
        datum.data = array.tobytes()
    else:
        datum.float_data.extend(array.astype(np.float32).ravel().tolist())
    return datum
