"""Decoding of compressed images: the only door to OpenCV, since Caffe's numbers come from it."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from paratrain.errors import DataError, MissingDependencyError

__all__ = ["decode"]


def _cv2() -> ModuleType:
    try:
        import cv2
    except ImportError:
        raise MissingDependencyError("OpenCV", "decoding JPEG and PNG images", "images") from None
    module: ModuleType = cv2
    return module


def decode(encoded: bytes, *, color: bool | None = None) -> npt.NDArray[np.uint8]:
    """Decode a JPEG, PNG or another image that OpenCV knows to a (C, H, W) view, channels in the order B, G, R.

    ``color`` True gives 3 channels, False 1 (grey), None as many as the image has. Raises DataError if it cannot be
    decoded or has more than 8 bits a channel.
    """
    cv2 = _cv2()
    flag = cv2.IMREAD_UNCHANGED if color is None else cv2.IMREAD_COLOR if color else cv2.IMREAD_GRAYSCALE
    try:
        image: npt.NDArray[Any] | None = cv2.imdecode(np.frombuffer(encoded, np.uint8), flag) if encoded else None
    except cv2.error as error:
        raise DataError(f"the image cannot be decoded ({error})") from None
    if image is None:
        raise DataError(f"{len(encoded):,} bytes that are no image OpenCV can decode, or a damaged one")
    if image.dtype != np.uint8:
        raise DataError(f"the image has {image.dtype.itemsize * 8} bits a channel; only 8 are supported")
    return image[np.newaxis] if image.ndim == 2 else image.transpose(2, 0, 1)
