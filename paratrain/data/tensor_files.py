"""Weights as named arrays, for programs that know no Caffe: NumPy's ``.npz`` and safetensors, whose library enters here alone.

Parameter INDEX of layer LAYER is called ``LAYER/INDEX``. ``LAYER.weight`` and ``LAYER.bias`` are understood as 0 and 1.
Beside them lies, where it is known, the network's description as prototxt: in an npz the array ``__net__``, in a safetensors
file the metadata entry ``net``.
"""

from __future__ import annotations

import importlib
import os
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from paratrain.errors import MissingDependencyError, SnapshotError
from paratrain.proto import replace_atomically

__all__ = ["Tensors", "is_tensor_file", "read_tensors", "write_tensors"]

Array = npt.NDArray[Any]

_NET = "__net__"
_WORDS = {"weight": 0, "bias": 1}
_NUMBERS = "fiub"  # the kinds of dtype that weights may have; bfloat16 counts as V


@dataclass(frozen=True)
class Tensors:
    """The parameters by layer name and index, and the network's prototxt ("" where it is not known)."""

    layers: dict[str, dict[int, Array]]
    net: str = ""


def is_tensor_file(path: str | os.PathLike[str]) -> bool:
    """Whether the file begins as an npz or a safetensors file does; False where it cannot be read."""
    return _kind(path) is not None


def _kind(path: str | os.PathLike[str]) -> str | None:
    """``npz`` begins as a zip archive; ``safetensors`` with the length of its header, and the header, with a brace."""
    try:
        with Path(path).open("rb") as stream:
            head = stream.read(9)
            size_bytes = os.fstat(stream.fileno()).st_size
    except OSError:
        return None
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return "npz"
    fits = 2 <= int.from_bytes(head[:8], "little") <= size_bytes - 8
    return "safetensors" if fits and head[8:9] == b"{" else None


def read_tensors(path: str | os.PathLike[str]) -> Tensors:
    """Return what an npz or safetensors file holds; bfloat16 comes as float32, all others as they are.

    Raises SnapshotError for a file that is missing, damaged, or holds something else than a network's parameters, and
    MissingDependencyError where the library is not installed.
    """
    file, kind = Path(path), _kind(path)
    if kind is None:
        what = "is neither an npz nor a safetensors file, or is cut off" if file.exists() else "no such file"
        raise SnapshotError(f"{file}: {what}")
    try:
        named, net = _read_npz(file) if kind == "npz" else _read_safetensors(file)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise SnapshotError(f"{file}: cannot be read as {kind} ({error})") from None
    layers: dict[str, dict[int, Array]] = {}
    for name, values in named.items():
        layer, index = _place(file, name)
        if index in layers.setdefault(layer, {}):
            raise SnapshotError(f"{file}: parameter {index} of layer '{layer}' is there twice, once as '{name}'")
        if values.dtype.kind not in _NUMBERS:
            raise SnapshotError(f"{file}: '{name}' holds {values.dtype}, no numbers")
        layers[layer][index] = values
    return Tensors(layers, net)


def _place(file: Path, name: str) -> tuple[str, int]:
    layer, _, index = name.rpartition("/")
    if layer and index.isdecimal():
        return layer, int(index)
    layer, _, word = name.rpartition(".")
    if layer and word in _WORDS:
        return layer, _WORDS[word]
    raise SnapshotError(
        f"{file}: '{name}' names no parameter of a layer; expected 'LAYER/0', 'LAYER/1' ..., or 'LAYER.weight' and 'LAYER.bias'"
    )


def _read_npz(file: Path) -> tuple[dict[str, Array], str]:
    # Opened here: np.load leaves the file of a damaged archive open.
    with file.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
        named = {name: archive[name] for name in archive.files}
    net = named.pop(_NET, None)
    return named, "" if net is None else str(net[()])


def _read_safetensors(file: Path) -> tuple[dict[str, Array], str]:
    library = _require("safetensors", f"the safetensors file {file}")
    try:
        with library.safe_open(str(file), framework="numpy") as opened:
            metadata = opened.metadata() or {}
            named = {name: _widened(opened.get_tensor(name)) for name in opened.keys()}  # noqa: SIM118  (no mapping)
    except library.SafetensorError as error:
        raise ValueError(str(error)) from None
    return named, metadata.get("net", "")


def _widened(values: Array) -> Array:
    """bfloat16, which only ml_dtypes knows, as float32."""
    return values.astype(np.float32) if values.dtype.name == "bfloat16" else values


def write_tensors(path: str | os.PathLike[str], tensors: Tensors) -> None:
    """Write a file whose name ends in ``.npz`` or ``.safetensors``; it is whole or not there.

    Raises SnapshotError where it cannot be written, MissingDependencyError where the library is not installed.
    """
    file = Path(path)
    named = dict(_named(tensors))
    try:
        with replace_atomically(file) as temporary:
            if file.suffix == ".safetensors":
                _write_safetensors(temporary, named, tensors.net, file)
            else:
                described = {_NET: np.array(tensors.net)} if tensors.net else {}
                with temporary.open("xb") as stream:
                    np.savez(stream, allow_pickle=False, **described, **named)
    except OSError as error:
        raise SnapshotError(f"{file}: the weights cannot be written ({error.strerror or error})") from None


def _write_safetensors(path: Path, named: dict[str, Array], net: str, called: Path) -> None:
    library = _require("safetensors.numpy", f"the safetensors file {called}")
    metadata = {"format": "np"} | ({"net": net} if net else {})
    try:
        library.save_file(named, str(path), metadata=metadata)
    except _require("safetensors", "").SafetensorError as error:
        raise OSError(str(error)) from None


def _named(tensors: Tensors) -> Iterator[tuple[str, Array]]:
    for layer, blobs in tensors.layers.items():
        for index, values in sorted(blobs.items()):
            # Not ascontiguousarray, which would give a single number an axis.
            yield f"{layer}/{index}", np.asarray(values, order="C")


def _require(module: str, purpose: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise MissingDependencyError("safetensors", purpose, "safetensors") from None
