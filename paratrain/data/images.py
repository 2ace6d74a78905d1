"""Decoding and resizing of images: the only door to OpenCV, since Caffe's numbers come from it."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from paratrain.errors import DataError, MissingDependencyError

__all__ = ["decode", "read_image_file", "resize"]

Pixels = npt.NDArray[np.uint8]


def _cv2(purpose: str = "decoding JPEG and PNG images") -> ModuleType:
    try:
        import cv2
    except ImportError:
        raise MissingDependencyError("OpenCV", purpose, "images") from None
    module: ModuleType = cv2
    return module


def decode(encoded: bytes, *, color: bool | None = None) -> Pixels:
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


def resize(image: Pixels, height: int, width: int) -> Pixels:
    """Return the (C, H, W) image in another size, by OpenCV's bilinear interpolation, Caffe's way: a (C, height, width)
    view.
    """
    cv2 = _cv2("resizing images")
    resized: Pixels = cv2.resize(image.transpose(1, 2, 0), (width, height), interpolation=cv2.INTER_LINEAR)
    return resized[np.newaxis] if resized.ndim == 2 else resized.transpose(2, 0, 1)


def read_image_file(path: str, root_folder: str = "") -> bytes:
    """Return the bytes of the image file ``root_folder + path``: Caffe joins the two without a '/'.

    Raises DataError, which names the file, if it cannot be read.
    """
    file = Path(root_folder + path)
    try:
        return file.read_bytes()
    except FileNotFoundError:
        hint = ""
        if root_folder and not root_folder.endswith("/") and (Path(root_folder) / path).exists():
            hint = f"; root_folder is put in front as it is: write '{root_folder}/'"
        elif not file.is_absolute():
            hint = f" (looked up from {Path.cwd()})"
        raise DataError(f"there is no image {file}{hint}") from None
    except OSError as error:
        raise DataError(f"the image {file} cannot be read: {error.strerror}") from None
