"""Decoding and resizing of images: the only door to OpenCV, since Caffe's numbers come from it."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from paratrain.errors import DataError, MissingDependencyError

__all__ = ["copy_pixels", "decode", "decode_as_stored", "encode", "load_opencv", "read_image_file", "resize"]

Pixels = npt.NDArray[np.uint8]


def load_opencv(purpose: str = "decoding JPEG and PNG images") -> ModuleType:
    """Return the library. Raises MissingDependencyError, naming the ``purpose``, where it is not installed."""
    is_first = "cv2" not in sys.modules
    try:
        import cv2
    except ImportError:
        raise MissingDependencyError("OpenCV", purpose, "images") from None
    if is_first:
        # Images are decoded by several threads side by side; a second pool of threads would only get in their way.
        cv2.setNumThreads(1)
    module: ModuleType = cv2
    return module


def decode(encoded: bytes, *, color: bool | None = None) -> Pixels:
    """Decode a JPEG, PNG or another image that OpenCV knows to a (C, H, W) view, channels in the order B, G, R.

    ``color`` True gives 3 channels, False 1 (grey), None as many as the image has. Raises DataError if it cannot be
    decoded or has more than 8 bits a channel.
    """
    cv2 = load_opencv()
    flag = cv2.IMREAD_UNCHANGED if color is None else cv2.IMREAD_COLOR if color else cv2.IMREAD_GRAYSCALE
    image = _decode(cv2, encoded, flag)
    if image.dtype != np.uint8:
        raise DataError(f"the image has {image.dtype.itemsize * 8} bits a channel; only 8 are supported")
    return image[np.newaxis] if image.ndim == 2 else image.transpose(2, 0, 1)


def decode_as_stored(encoded: bytes) -> npt.NDArray[Any]:
    """Decode an image to (H, W, C) as it is stored: 1, 3 or 4 channels in the order B, G, R, alpha, of 8, 16 or 32 bits.

    Raises DataError if it cannot be decoded.
    """
    cv2 = load_opencv()
    image = _decode(cv2, encoded, cv2.IMREAD_UNCHANGED)
    return image[:, :, np.newaxis] if image.ndim == 2 else image


def _decode(cv2: ModuleType, encoded: bytes, flag: int) -> npt.NDArray[Any]:
    try:
        image: npt.NDArray[Any] | None = cv2.imdecode(np.frombuffer(encoded, np.uint8), flag) if encoded else None
    except cv2.error as error:
        raise DataError(f"the image cannot be decoded ({error})") from None
    if image is None:
        raise DataError(f"{len(encoded):,} bytes that are no image OpenCV can decode, or a damaged one")
    return image


def copy_pixels(image: npt.NDArray[Any], out: npt.NDArray[Any], *, mirrored: bool = False) -> None:
    """Write a (C, H, W) image to ``out`` of the same shape and another type, turned left to right if ``mirrored``.

    Three channels that lie pixel by pixel, as ``decode`` returns them, are first taken apart by OpenCV: reading every
    third byte was measured to take a third longer in all.
    """
    cv2 = sys.modules.get("cv2")  # whatever has been decoded was decoded by it
    if cv2 is not None and len(image) == 3 and image.dtype == np.uint8 and image.strides[::2] == (1, 3):
        pixels = image.transpose(1, 2, 0)
        for channel, plane in zip(out, cv2.split(cv2.flip(pixels, 1) if mirrored else pixels), strict=True):
            np.copyto(channel, plane)
    else:
        np.copyto(out, image[:, :, ::-1] if mirrored else image)


def resize(image: Pixels, height: int, width: int) -> Pixels:
    """Return the (C, H, W) image in another size, by OpenCV's bilinear interpolation, Caffe's way: a (C, height, width)
    view. Raises DataError where OpenCV cannot make one so large.
    """
    cv2 = load_opencv("resizing images")
    try:
        resized: Pixels = cv2.resize(image.transpose(1, 2, 0), (width, height), interpolation=cv2.INTER_LINEAR)
    except cv2.error as error:
        reason = getattr(error, "err", None) or "OpenCV does not take such sizes"
        raise DataError(f"the image cannot be resized to {height} x {width} (height x width): {reason}") from None
    return resized[np.newaxis] if resized.ndim == 2 else resized.transpose(2, 0, 1)


def encode(image: Pixels, kind: str) -> bytes:
    """Return the (C, H, W) image, 1 channel or B, G, R, as a file of this ``kind`` (png, jpg ...), with OpenCV's settings.

    Raises DataError for a kind that OpenCV does not write.
    """
    cv2 = load_opencv("encoding images")
    pixels = np.ascontiguousarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0))
    try:
        is_encoded, encoded = cv2.imencode(f".{kind}", pixels)
    except cv2.error:
        is_encoded = False
    if not is_encoded:
        raise DataError(f"OpenCV does not write images of {image.shape} as '{kind}'; try png or jpg")
    data: bytes = encoded.tobytes()
    return data


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
    except ValueError:
        raise DataError(f"no image can have the name {str(file)!r}") from None
