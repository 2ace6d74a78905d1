"""pycaffe's ``caffe.io``: images, what nets take of them, and the messages that hold arrays."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from paratrain.data import datum as datums
from paratrain.errors import DataError, ShapeMismatchError
from paratrain.proto import BlobProto, BlobProtoVector, Datum, array_to_blob, blob_to_array, caffe_pb2
from paratrain.tools.image_arrays import load_image, oversample, resize_image
from paratrain.tools.net_inputs import Transformer

__all__ = [
    "Transformer",
    "array_to_blobproto",
    "array_to_datum",
    "arraylist_to_blobprotovecor_str",
    "arraylist_to_blobprotovector_str",
    "blobproto_to_array",
    "blobprotovector_str_to_arraylist",
    "caffe_pb2",
    "datum_to_array",
    "load_image",
    "oversample",
    "resize_image",
]

Array = npt.NDArray[Any]

# What Caffe's module has imported for itself, and scripts take from there: ``caffe.io.resize`` is scikit-image's.
_OTHERS = {
    "resize": ("scikit-image", "skimage.transform", "resize"),
    "skimage": ("scikit-image", "skimage.io", ""),
    "zoom": ("scipy", "scipy.ndimage", "zoom"),
}


def __getattr__(name: str) -> Any:
    if name not in _OTHERS:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    package, module, function = _OTHERS[name]
    try:
        found = importlib.import_module(module)
    except ImportError:
        raise AttributeError(
            f"caffe.io.{name} is that of {package}, which is not installed: pip install {package}, or use "
            "caffe.io.resize_image and caffe.io.load_image, which need neither"
        ) from None
    return getattr(found, function) if function else importlib.import_module("skimage")


def blobproto_to_array(blob: BlobProto, return_diff: bool = False) -> Array:
    """Return the values of a BlobProto, or its gradients, as an array of its shape that may be written.

    Of files of old (num, channels, height, width) it has four axes: a mean image is (1, C, H, W). Raises SnapshotError where
    there are not as many values as the shape says.
    """
    return blob_to_array(blob, "diff" if return_diff else "data")


def array_to_blobproto(arr: npt.ArrayLike, diff: npt.ArrayLike | None = None) -> BlobProto:
    """Return a BlobProto of an array of any shape, and of gradients of the same shape where given."""
    if diff is not None and np.shape(diff) != np.shape(arr):
        raise ShapeMismatchError(f"the array has the shape {np.shape(arr)} and its diff {np.shape(diff)}")
    return array_to_blob(np.asarray(arr, np.float32), diff=diff)


def arraylist_to_blobprotovector_str(arraylist: Iterable[npt.ArrayLike]) -> bytes:
    """Return the bytes of a BlobProtoVector that holds the arrays."""
    return BlobProtoVector(blobs=[array_to_blobproto(array) for array in arraylist]).SerializeToString()


arraylist_to_blobprotovecor_str = arraylist_to_blobprotovector_str  # as Caffe spells it


def blobprotovector_str_to_arraylist(str: bytes) -> list[Array]:  # noqa: A002  Caffe's name
    """Return the arrays that the bytes of a BlobProtoVector hold. Raises DataError if they are none."""
    try:
        vector = BlobProtoVector.FromString(str)
    except DecodeError:
        raise DataError(f"{len(str):,} bytes that are not a BlobProtoVector") from None
    return [blobproto_to_array(blob) for blob in vector.blobs]


def array_to_datum(arr: npt.ArrayLike, label: int | None = None) -> Datum:
    """Return a Datum of an array (C, H, W): of uint8 as ``data``, of all else as ``float_data``; with a label where given.

    Raises ShapeMismatchError if the array does not have three axes.
    """
    if np.ndim(arr) != 3:
        raise ShapeMismatchError(f"a Datum holds (C, H, W); the array has the shape {np.shape(arr)}")
    made = datums.array_to_datum(arr)
    if label is None:
        made.ClearField("label")
    else:
        made.label = int(label)
    return made


def datum_to_array(datum: Datum) -> Array:
    """Return the pixels of a Datum, (C, H, W): uint8, or float32 of ``float_data``; an array that may be written.

    Compressed images are decoded, B, G, R. Raises DataError for values that do not fit the Datum's shape.
    """
    return np.array(datums.datum_to_array(datum))
