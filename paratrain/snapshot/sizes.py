"""How large the files of a snapshot will be: protobuf's binary format, Caffe's and ours, ends at 2 GiB."""

from __future__ import annotations

from paratrain.errors import SnapshotError
from paratrain.net import Net
from paratrain.proto.wire import LARGEST_BYTES

__all__ = ["check_message_sizes", "message_bytes"]


def message_bytes(net: Net, history_count: int, *, write_diff: bool = False) -> tuple[int, int]:
    """Return the bytes of the values in a caffemodel of ``net``, and in a solverstate with so many histories.

    As in Caffe, parameters that layers share are in the caffemodel once for each of them.
    """
    blobs = [blob for layer in net.layers for blob in layer.blobs]
    model_bytes = sum(blob.count * blob.dtype.itemsize for blob in blobs) * (2 if write_diff else 1)
    state_bytes = history_count * sum(entry.blob.count * entry.blob.dtype.itemsize for entry in net.parameters.entries)
    return model_bytes, state_bytes


def check_message_sizes(net: Net, history_count: int, *, write_diff: bool = False) -> None:
    """Raise SnapshotError unless binary snapshots of ``net`` stay below the limit, so that they can be written and read."""
    sizes = message_bytes(net, history_count, write_diff=write_diff)
    for kind, size_bytes in zip(("caffemodel", "solverstate"), sizes, strict=True):
        if size_bytes > LARGEST_BYTES:
            raise SnapshotError(
                f"network '{net.name}': a .{kind} of it would hold {size_bytes:,} bytes, and in protobuf's binary format it has "
                f"at most {LARGEST_BYTES:,}: no snapshot could be written. Set snapshot_format: HDF5 in the solver, which has "
                "no such limit and which Caffe reads too"
            )
