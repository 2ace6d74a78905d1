"""A contact sheet: images of any size in rows of small ones, with a caption under each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from paratrain.data.images import load_opencv

__all__ = ["draw_sheet"]

Pixels = npt.NDArray[Any]

_SIDE = 96
_CAPTION = 16
_GAP = 8
_PAPER, _INK = 255, 0


def draw_sheet(cells: Sequence[tuple[Pixels | None, str]]) -> npt.NDArray[np.uint8]:
    """Draw pixels (C, H, W) with their captions; return (3, height, width), B, G, R.

    Images are made to fit into 96 x 96, enlarged in whole pixels. One channel is gray, three are B, G, R, of other numbers
    the first is shown; values other than bytes are stretched from the smallest to the largest. None is a crossed-out cell.
    """
    cv2 = load_opencv("drawing a contact sheet")
    column_count = max(1, math.ceil(math.sqrt(len(cells))))
    row_count = math.ceil(len(cells) / column_count)
    width, height = _SIDE + _GAP, _SIDE + _CAPTION + _GAP
    sheet = np.full((row_count * height + _GAP, column_count * width + _GAP, 3), _PAPER, np.uint8)
    for place, (pixels, caption) in enumerate(cells):
        top = _GAP + place // column_count * height
        left = _GAP + place % column_count * width
        cell = sheet[top : top + _SIDE, left : left + _SIDE]
        if pixels is None:
            cv2.line(cell, (0, 0), (_SIDE - 1, _SIDE - 1), (0, 0, 255), 1)
            cv2.line(cell, (0, _SIDE - 1), (_SIDE - 1, 0), (0, 0, 255), 1)
        else:
            small = _fit(cv2, _displayable(pixels))
            rows, columns = small.shape[:2]
            y, x = (_SIDE - rows) // 2, (_SIDE - columns) // 2
            cell[y : y + rows, x : x + columns] = small
        ink = (_INK, _INK, _INK)
        strip = sheet[top + _SIDE : top + _SIDE + _CAPTION, left : left + _SIDE]
        text = caption.encode("ascii", "replace").decode()  # all that OpenCV's letters can write
        cv2.putText(strip, text, (0, _CAPTION - 4), cv2.FONT_HERSHEY_SIMPLEX, 0.4, ink, 1, cv2.LINE_AA)
    drawn: npt.NDArray[np.uint8] = sheet.transpose(2, 0, 1)
    return drawn


def _displayable(pixels: Pixels) -> npt.NDArray[np.uint8]:
    """Pixels (C, H, W) as bytes (H, W, 3)."""
    shown = pixels[:3] if len(pixels) in (3, 4) else pixels[:1].repeat(3, axis=0)
    if shown.dtype != np.uint8:
        values = np.nan_to_num(shown.astype(np.float64))
        low, high = values.min(), values.max()
        shown = np.rint((values - low) * (255 / (high - low) if high > low else 0)).astype(np.uint8)
    return np.ascontiguousarray(shown.transpose(1, 2, 0))


def _fit(cv2: Any, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    rows, columns = image.shape[:2]
    longest = max(rows, columns)
    if longest > _SIDE:
        size = max(1, columns * _SIDE // longest), max(1, rows * _SIDE // longest)
        smaller: npt.NDArray[np.uint8] = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        return smaller
    times = _SIDE // longest
    return image.repeat(times, axis=0).repeat(times, axis=1)
