"""What layers take over from one batch to the next (``Layer.carried_blobs``): the states of RNN and LSTM, say.

Every rank has values of its own in the net that is trained; test nets with such layers are the root's alone. A snapshot
has them in an ``.npz`` file of NumPy's, one array for each blob, named ``train/RANK/LAYER/INDEX`` or ``test/NET/LAYER/INDEX``.
"""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from paratrain.blob import Blob
from paratrain.errors import SnapshotError
from paratrain.net import Net
from paratrain.proto import replace_atomically

__all__ = ["carries", "copy_carried", "put_carried", "read_carried", "write_carried"]

Array = npt.NDArray[Any]

logger = logging.getLogger(__name__)


def carries(net: Net) -> bool:
    """Whether a layer of ``net`` takes something over from one batch to the next."""
    return any(layer.carried_blobs() for layer in net.layers)


def copy_carried(net: Net, where: str) -> dict[str, Array]:
    """Copy what the layers of ``net`` take over to the next batch, each array named ``WHERE/LAYER/INDEX``."""
    return {name: blob.read_data(None).copy() for name, blob in _blobs(net, where).items()}


def put_carried(net: Net, arrays: Mapping[str, Array], where: str) -> list[str]:
    """Put back what :func:`copy_carried` has copied; return the names of the layers that begin with zeros instead, since
    there is nothing for them, or it has another shape.
    """
    zeroed = []
    for name, blob in _blobs(net, where).items():
        saved = arrays.get(name)
        fits = saved is not None and saved.shape == blob.shape
        blob.write_data(None)[...] = saved if fits else 0
        if not fits:
            zeroed.append(name.removeprefix(f"{where}/").rpartition("/")[0])
    return list(dict.fromkeys(zeroed))


def write_carried(path: str, arrays: Mapping[str, Array]) -> None:
    """Write the arrays; the file is whole or not there. Raises SnapshotError."""
    try:
        with replace_atomically(path) as temporary, temporary.open("xb") as stream:
            np.savez(stream, **arrays)  # type: ignore[arg-type]
    except OSError as error:
        raise SnapshotError(f"{path}: cannot be written ({error.strerror})") from None


def read_carried(path: Path) -> dict[str, Array]:
    """Read what :func:`write_carried` has written. Raises SnapshotError."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as saved:
            arrays = {name: saved[name] for name in saved.files}
    except OSError as error:
        raise SnapshotError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, EOFError, KeyError, TypeError, AttributeError, zipfile.BadZipFile):
        raise SnapshotError(f"{path}: is damaged, or does not hold the states of layers") from None
    if not all(isinstance(array, np.ndarray) and array.dtype.kind == "f" for array in arrays.values()):
        raise SnapshotError(f"{path}: is damaged: the states of layers are floating-point numbers")
    return arrays


def _blobs(net: Net, where: str) -> dict[str, Blob]:
    return {
        f"{where}/{layer.name}/{index}": blob
        for layer in net.layers
        for index, blob in enumerate(layer.carried_blobs())
    }
