"""Caffe's window files: images, and in each of them windows with a class and their overlap with an object."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from paratrain.errors import DataError

__all__ = ["WindowFile", "Windows", "read_window_file"]

_FORMAT = (
    "expected for each image '# index', its path, channels, height, width and the number of windows, one to a line, "
    "and then for each window a line 'class overlap x1 y1 x2 y2'"
)
_LARGEST = 2**31 - 1

Lines = Iterator[tuple[int, str]]


@dataclass(frozen=True)
class Windows:
    """Windows of one kind; row i of each array is window i."""

    image: npt.NDArray[np.int32]
    """(n,) the number of its image, an index into ``WindowFile.paths``."""
    label: npt.NDArray[np.int32]
    """(n,) its class, 0 for background."""
    box: npt.NDArray[np.int32]
    """(n, 4) x1, y1, x2, y2 in pixels, all inclusive."""
    line: npt.NDArray[np.int32]
    """(n,) the line of the file that gives it."""

    def __len__(self) -> int:
        return len(self.image)


@dataclass(frozen=True)
class WindowFile:
    """What a window file holds."""

    paths: list[str]
    foreground: Windows
    background: Windows


def read_window_file(path: str, fg_threshold: float, bg_threshold: float) -> WindowFile:
    """Read a window file: for each image ``# index``, path, channels, height, width and number of windows, one to a
    line, then a line ``class overlap x1 y1 x2 y2`` for each window.

    Windows with an overlap of at least ``fg_threshold`` are foreground; of the others those below ``bg_threshold`` are
    background, class 0; the rest are left out. A window belongs to the image above it, whatever that one's index. The
    channels and sizes are not used: images say themselves how large they are. Empty lines are skipped.

    Raises DataError, naming file and line, for what is not of this form, foreground of class 0 or less, and windows
    that end before they start.
    """
    paths: list[str] = []
    kinds: tuple[list[npt.NDArray[Any]], ...] = ([], [])
    try:
        with Path(path).open(encoding="utf-8", errors="surrogateescape") as file:
            lines = ((number, line.strip()) for number, line in enumerate(file, 1) if line.strip())
            for number, line in lines:
                header, index = line[:1], line[1:]
                if header != "#" or _whole_number(index) is None:
                    raise DataError(f"{path}:{number}: found '{line[:60]}'; {_FORMAT}")
                paths.append(_read_header(path, lines, number))
                windows = _read_windows(path, lines, number, len(paths) - 1)
                overlap = windows[:, 2].astype(np.float32)
                foreground = overlap >= np.float32(fg_threshold)
                background = ~foreground & (overlap < np.float32(bg_threshold))
                _check(path, windows[foreground | background], windows[foreground])
                windows[background, 1] = 0
                kinds[0].append(_compact(windows[foreground]))
                kinds[1].append(_compact(windows[background]))
    except OSError as error:
        raise DataError(
            f"{path}: the window file cannot be read ({error.strerror}; looked up from {Path.cwd()})"
        ) from None
    if not paths:
        raise DataError(f"{path}: the window file is empty; {_FORMAT}")
    joined = [np.concatenate(kind) for kind in kinds]
    return WindowFile(paths, *(Windows(rows[:, 0], rows[:, 1], rows[:, 2:6], rows[:, 6]) for rows in joined))


def _read_header(path: str, lines: Lines, first: int) -> str:
    """Read the lines between '# index' and the number of windows; return the image's path."""
    header = list(islice(lines, 4))
    for number, line in header[1:]:
        if _whole_number(line) is None:
            raise DataError(f"{path}:{number}: found '{line[:60]}', not a number; {_FORMAT}")
    if len(header) < 4:
        raise DataError(f"{path}:{first}: the file ends within this image; {_FORMAT}")
    return header[0][1]


def _read_windows(path: str, lines: Lines, first: int, image: int) -> npt.NDArray[np.float64]:
    """Return the windows of an image, (n, 8): image, class, overlap, x1, y1, x2, y2, line."""
    number, line = next(lines, (first, ""))
    count = _whole_number(line)
    if count is None:
        raise DataError(f"{path}:{number}: found '{line[:60]}', not the number of windows; {_FORMAT}")
    rows = list(islice(lines, count))
    if len(rows) < count:
        raise DataError(f"{path}:{number}: the file ends after {len(rows)} of {count} windows of this image")
    windows = np.empty((count, 8))
    windows[:, 0], windows[:, 7] = image, [number for number, _ in rows]
    try:
        windows[:, 1:7] = np.array([row.split() for _, row in rows], np.float64).reshape(count, 6)
    except ValueError:
        for number, row in rows:
            _check_row(path, number, row)
        raise
    return windows


def _check_row(path: str, number: int, row: str) -> None:
    """Raise DataError for the line of a window that is not six numbers."""
    try:
        values = [float(value) for value in row.split()]
    except ValueError:
        values = []
    if len(values) != 6:
        raise DataError(f"{path}:{number}: expected 'class overlap x1 y1 x2 y2', found '{row[:60]}'")


def _check(path: str, used: npt.NDArray[np.float64], foreground: npt.NDArray[np.float64]) -> None:
    """Raise DataError for the first of the windows that makes no sense."""
    whole = used[:, [1, 3, 4, 5, 6]]
    are_whole = ((np.abs(whole) <= _LARGEST) & (whole == np.rint(whole))).all(axis=1)
    problems = (
        (used[~are_whole], "class and corners must be whole numbers"),
        (used[(used[:, 5] < used[:, 3]) | (used[:, 6] < used[:, 4])], "the window ends before it starts"),
        (foreground[foreground[:, 1] <= 0], "a foreground window must have a class above 0"),
    )
    for rows, message in problems:
        if len(rows):
            label, overlap, *corners = rows[0, 1:7]
            box = " ".join(f"{corner:g}" for corner in corners)
            raise DataError(f"{path}:{rows[0, 7]:.0f}: {message}: class {label:g}, overlap {overlap:g}, box {box}")


def _compact(windows: npt.NDArray[np.float64]) -> npt.NDArray[np.int32]:
    """Image, class, x1, y1, x2, y2, line: window files list millions."""
    return windows[:, [0, 1, 3, 4, 5, 6, 7]].astype(np.int32)


def _whole_number(text: str) -> int | None:
    """The number that the text is; None if it is none, or negative."""
    stripped = text.strip()
    return int(stripped) if stripped.isdecimal() and len(stripped) < 10 else None
