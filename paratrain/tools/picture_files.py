"""The files that classifying and detecting read and write: means, labels, lists of windows, results."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from paratrain.data.hdf5 import open_hdf5
from paratrain.data.transformer import read_mean
from paratrain.errors import DataError, ShapeMismatchError
from paratrain.proto import replace_atomically, write_atomically
from paratrain.registry import nearest
from paratrain.tools.image_nets import Detection

__all__ = [
    "find_images",
    "read_array",
    "read_channel_means",
    "read_labels",
    "read_lines",
    "read_windows",
    "write_array",
    "write_detections",
]

Array = npt.NDArray[Any]
WINDOW_COLUMNS = ("ymin", "xmin", "ymax", "xmax")

_SYNSET = re.compile(r"n\d{8}$")


def read_array(path: str) -> Array:
    """Return the array of a .npy file. Raises DataError if it cannot be read or holds something else."""
    try:
        found = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file (looked up from {Path.cwd()})") from None
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: is no array that NumPy can read ({error})") from None
    if not isinstance(found, np.ndarray):
        raise DataError(f"{path}: holds several arrays; give one, saved by numpy.save")
    return found


def read_channel_means(path: str, channel_count: int) -> Array:
    """Return the mean of each channel, (C,), of a mean image (C, H, W) or of such means themselves.

    The file is a .npy, or a .binaryproto as ``compute_image_mean`` writes it. Raises DataError if it cannot be read,
    ShapeMismatchError for a mean of other channels.
    """
    mean = read_mean(path) if path.endswith(".binaryproto") else read_array(path)
    if mean.ndim == 4 and len(mean) == 1:
        mean = mean[0]
    if mean.ndim not in (1, 3) or len(mean) != channel_count or not np.issubdtype(mean.dtype, np.number):
        raise ShapeMismatchError(
            f"{path}: the mean has the shape {mean.shape}; the net takes images of {channel_count} channels, so that it "
            f"should be ({channel_count}, height, width), or ({channel_count},)"
        )
    means: Array = mean.reshape(channel_count, -1).mean(axis=1)
    return means


def read_labels(path: str) -> list[str]:
    """Return the names of the classes: one on each line, line 1 being class 0.

    Of lines as ``n01440764 tench, Tinca tinca``, ImageNet's, only the first name is kept, and they are sorted by number.
    """
    lines = read_lines(path, "the names of the classes")
    words = [line.split(maxsplit=1) for line in lines]
    if all(_SYNSET.match(parts[0]) for parts in words):
        return [(parts[1] if len(parts) > 1 else parts[0]).split(",")[0] for parts in sorted(words)]
    return lines


def read_lines(path: str, meaning: str) -> list[str]:
    """Return the lines of a text file that are not empty. Raises DataError, which says what it should hold."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise DataError(f"{path}: {meaning} cannot be read: {reason} (looked up from {Path.cwd()})") from None
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise DataError(f"{path}: is empty; it should hold {meaning}, one on each line")
    return lines


def find_images(folder: str, extension: str) -> list[str]:
    """Return the files of a folder whose names end in ``.extension``, sorted. Raises DataError where there are none."""
    ending = f".{extension.lstrip('.')}"
    files = sorted(file for file in Path(folder).iterdir() if file.is_file() and not file.name.startswith("."))
    found = [str(file) for file in files if file.name.endswith(ending)]
    if not found:
        others = sorted({file.suffix[1:] for file in files if file.suffix})
        hint = f"; the files there end in {', '.join(others)}: give --ext {others[0]}" if others else ""
        raise DataError(f"{folder}: has no image whose name ends in {ending}{hint}")
    return found


def read_windows(path: str) -> list[tuple[str, list[tuple[float, ...]]]]:
    """Return the images that a CSV file names with their windows (ymin, xmin, ymax, xmax), in the order of the file.

    Its first line names the columns: filename, xmin, ymin, xmax and ymax, in any order. Raises DataError, naming the line.
    """
    rows = list(csv.reader(read_lines(path, "windows"), skipinitialspace=True))
    header = [word.strip() for word in rows[0]]
    for name in ("filename", *WINDOW_COLUMNS):
        if name not in header:
            close = nearest(name, header, 1)
            hint = f" ('{close[0]}' is near it)" if close else ""
            raise DataError(f"{path}:1: there is no column '{name}'{hint}; expected filename,xmin,ymin,xmax,ymax")
    windows: dict[str, list[tuple[float, ...]]] = {}
    for number, row in enumerate(rows[1:], start=2):
        fields = dict(zip(header, row, strict=False))
        try:
            corners = tuple(float(fields[name]) for name in WINDOW_COLUMNS)
        except (KeyError, ValueError):
            raise DataError(f"{path}:{number}: expected {','.join(header)}, found {','.join(row)[:80]}") from None
        windows.setdefault(fields["filename"].strip(), []).append(corners)
    if not windows:
        raise DataError(f"{path}: holds no window, only its header")
    return list(windows.items())


def write_array(path: str, values: Array) -> str:
    """Write an array as .npy, all of it or nothing; return the file's name, which gets .npy where it lacks it."""
    name = path if path.endswith(".npy") else f"{path}.npy"
    stream = io.BytesIO()
    np.save(stream, values)
    write_atomically(name, stream.getvalue())
    return name


def write_detections(path: str, detections: Sequence[Detection]) -> None:
    """Write windows and what the net says of them, all or nothing.

    A .csv has the columns filename, ymin, xmin, ymax, xmax, class0, class1 ...; an .h5 has the datasets ``filename``,
    ``window`` (n, 4) and ``prediction`` (n, classes). Raises DataError for another ending.
    """
    names = [detection["filename"] for detection in detections]
    windows = np.array([list(detection["window"]) for detection in detections], np.float64).reshape(-1, 4)
    predictions = np.array([np.ravel(detection["prediction"]) for detection in detections], np.float32)
    if path.lower().endswith(".csv"):
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["filename", *WINDOW_COLUMNS, *(f"class{index}" for index in range(predictions.shape[1]))])
        for name, window, prediction in zip(names, windows, predictions, strict=True):
            writer.writerow([name, *(f"{corner:g}" for corner in window), *(f"{value:.9g}" for value in prediction)])
        write_atomically(path, stream.getvalue().encode())
    elif path.lower().endswith((".h5", ".hdf5")):
        try:
            with replace_atomically(path) as temporary, open_hdf5(temporary, "w") as opened:
                opened["filename"] = names
                opened["window"] = windows
                opened["prediction"] = predictions
        except OSError as error:
            raise DataError(f"{path}: cannot be written ({error.strerror or error})") from None
    else:
        raise DataError(f"{path}: the results are written as .csv or .h5; give a name that ends so")
