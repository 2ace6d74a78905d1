"""Weights as Caffe's ``.caffemodel``: a binary NetParameter whose layers hold their blobs."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path

from paratrain.data.hdf5 import is_hdf5, read_weights, require_h5py
from paratrain.data.tensor_files import is_tensor_file, read_tensors
from paratrain.errors import SnapshotError
from paratrain.net import CopyRules, Net
from paratrain.net.hdf5_weights import copy_arrays
from paratrain.proto import NetParameter, SolverState, read_binary, upgrade_net, write_binary
from paratrain.snapshot.training_state import read_training_state

__all__ = ["check_writable", "load_all_weights", "load_weights", "save_weights", "split_weights"]

logger = logging.getLogger(__name__)


def save_weights(net: Net, path: str | Path, *, write_diff: bool = False) -> None:
    """Write the weights of ``net`` (and gradients, when asked); the file is whole or not there.

    Raises SnapshotError where it cannot be written.
    """
    write_binary(path, net.to_proto(write_diff))


def load_weights(net: Net, path: str | Path, rules: CopyRules | None = None) -> list[str]:
    """Copy into ``net`` the weights of equally named layers in a caffemodel, of any age that Caffe reads, or in an HDF5, npz
    or safetensors file of weights. With ``rules`` names may change, and the log has a table of what became of each layer.
    Returns the names of the layers in the file.

    Raises SnapshotError for a file that is missing, is neither, or has no layer of this net; ShapeMismatchError for weights
    of other shapes.
    """
    if is_hdf5(path):
        try:
            arrays = read_weights(path)
        except SnapshotError as error:
            if "it has current_step" in str(error) or "history" in str(error):
                raise SnapshotError(
                    f"{error}: it is a solver state; give the .caffemodel.h5 beside it, or resume with -snapshot {path}"
                ) from None
            raise
        _check_names(net, path, list(arrays), list(arrays), rules)
        copy_arrays(net, arrays, rules)
        return list(arrays)
    if is_tensor_file(path):
        layers = read_tensors(path).layers
        _check_names(net, path, list(layers), list(layers), rules)
        copy_arrays(net, layers, rules)
        return list(layers)
    try:
        source = upgrade_net(read_binary(path, NetParameter))
    except SnapshotError as error:
        if Path(path).suffix == ".trainstate" and Path(path).exists():
            model = _model_beside(path)
            raise SnapshotError(
                f"{path}: is no file of weights; give {model}, which belongs to it, or resume with -snapshot {path}"
            ) from None
        if _is_state(path):
            raise SnapshotError(f"{error}; give the .caffemodel beside it, or resume with -snapshot {path}") from None
        raise
    names = [layer.name for layer in source.layer]
    _check_names(net, path, names, [layer.name for layer in source.layer if layer.blobs], rules)
    net.copy_trained_layers_from(source, rules)
    return names


def load_all_weights(net: Net, paths: Sequence[str], rules: CopyRules) -> None:
    """Copy the weights of several files into ``net``, one after the other. Raises what ``load_weights`` does, and
    SnapshotError for a layer to be renamed that is in none of them, or not in the net.
    """
    if not paths:
        return
    rules.check_net(net.params)
    names: list[str] = []
    for path in paths:
        logger.info("Finetuning from %s", path)
        names += load_weights(net, path, rules)
    rules.check_source(names)


def _check_names(
    net: Net, path: str | Path, names: list[str], names_with_weights: list[str], rules: CopyRules | None
) -> None:
    renames = rules.renames if rules is not None else {}
    if not any(renames.get(name, name) in net.params for name in names_with_weights):
        raise SnapshotError(
            f"{path}: holds weights for none of this net's layers; it has {_some(names)}, the net {_some(list(net.params))}"
        )


def _model_beside(path: str | Path) -> str:
    """The weights of the snapshot that a trainstate ends; their usual name where it cannot be read."""
    try:
        names = [name for name in read_training_state(path).files if ".caffemodel" in name]
    except SnapshotError:
        names = []
    return str(Path(path).with_name(names[0]) if names else Path(path).with_suffix(".caffemodel"))


def _is_state(path: str | Path) -> bool:
    try:
        return read_binary(path, SolverState).HasField("iter")
    except SnapshotError:
        return False


def _some(names: list[str], most: int = 5) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:most]) or "no layers"
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def split_weights(weights: str) -> list[str]:
    """Return the paths in a comma-separated list, as ``-weights`` and the solver's ``weights`` give them."""
    return [path.strip() for path in weights.split(",") if path.strip()]


def check_writable(prefix: str, *, hdf5: bool = False) -> None:
    """Raise SnapshotError unless files named ``prefix...`` can be made, which is tried with a file that is removed again.

    Raises MissingDependencyError where they are to be HDF5 and h5py is not installed.
    """
    if hdf5:
        require_h5py("snapshot_format: HDF5")
    folder = Path(f"{prefix}_iter_0").parent
    if not folder.is_dir():
        raise SnapshotError(
            f"{folder}: the folder for snapshots does not exist (snapshot_prefix: '{prefix}', looked up from {Path.cwd()}); "
            "make it, or change snapshot_prefix"
        )
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise SnapshotError(
            f"{folder}: snapshots cannot be written there ({error.strerror}; snapshot_prefix: '{prefix}')"
        ) from None
