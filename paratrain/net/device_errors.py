"""A GPU that is full, lost or has failed: which layer was at work, and the largest batch that would fit."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from paratrain.backends import Backend
from paratrain.blob import SyncedMemory, whole_block
from paratrain.errors import DeviceError, DeviceFullError
from paratrain.proto import TRAIN

if TYPE_CHECKING:
    from paratrain.net.net import Net

__all__ = ["largest_batch", "named", "telling_device_errors", "telling_of_blobs"]


def named(error: BaseException, net: Net, index: int, action: str) -> DeviceError | None:
    """What ``error``, raised while layer ``index`` ran ``action``, says of the GPU; None where it is not about one."""
    found = error if isinstance(error, DeviceError) else net.context.backend.device_error(error)
    if found is None:
        return None
    layer = net.layers[index]
    place = f"layer '{layer.name}' ({layer.type}), {action}"
    return _with_advice(found, net, place) if isinstance(found, DeviceFullError) else DeviceError(f"{place}: {found}")


@contextlib.contextmanager
def telling_of_blobs(net: Net) -> Iterator[None]:
    """Say of a GPU that turns out to be full within the block that it is the net's blobs that want memory."""
    try:
        yield
    except DeviceFullError as error:
        raise _with_advice(error, net, f"the blobs of network '{net.name}'", for_blobs=True) from error.__cause__


@contextlib.contextmanager
def telling_device_errors(backend: Backend, where: object) -> Iterator[None]:
    """Make a DeviceError, which begins with ``where``, of what leaves the block and says that the GPU is full or has failed. One
    that says of what it is already, as of a layer, stays as it is.
    """
    try:
        yield
    except Exception as error:
        found = error if isinstance(error, DeviceError) else backend.device_error(error)
        if found is None or (found is error and not str(error).startswith("GPU ")):
            raise
        text = str(where)
        raise type(found)(f"{text}: {found}", **vars(found)) from error


def largest_batch(net: Net, error: DeviceFullError, *, for_blobs: bool = False) -> tuple[int, int] | None:
    """Estimate the largest batch that would fit (0: not even one sample), and the bytes of a sample; None where the net does not
    tell.

    What blobs take grows with the batch, while parameters, what the solver remembers, and the work space of libraries count
    as they are. ``for_blobs`` says that it was for blobs that memory was wanted; else the sizes have to tell.
    """
    batch = _batch_size(net)
    blobs = _blocks(net)
    if batch < 1 or not blobs:
        return None
    sizes = [block.count * block.dtype.itemsize for block in blobs]
    total = sum(sizes) if net.memory_plan is None else net.memory_plan.needed_bytes()
    held = min(total, sum(block.device_bytes for block in blobs))
    room = error.free_bytes + min(held, error.used_bytes)
    if not for_blobs and error.wanted_bytes not in sizes:  # it is wanted for something else, as well as the blobs
        room -= error.wanted_bytes
    sample_bytes = max(1, -(-total // batch))
    return max(0, min(room // sample_bytes, batch - 1)), sample_bytes


def _with_advice(error: DeviceFullError, net: Net, place: str, *, for_blobs: bool = False) -> DeviceFullError:
    return DeviceFullError(
        f"{place}: {error}. {_advice(net, error, for_blobs=for_blobs)}",
        wanted_bytes=error.wanted_bytes,
        free_bytes=error.free_bytes,
        used_bytes=error.used_bytes,
    )


def _batch_size(net: Net) -> int:
    for layer, tops in zip(net.layers, net.tops, strict=True):
        if (layer.is_data or layer.type in ("Input", "DummyData")) and tops and tops[0].shape:
            return tops[0].shape[0]
    return 0


def _blocks(net: Net) -> list[SyncedMemory]:
    """The memories of the blobs, and in training of their gradients, each once."""
    found: dict[int, SyncedMemory] = {}
    for blob in (blob for tops in net.tops for blob in tops):
        for memory in (blob.data_memory, blob.diff_memory) if net.phase == TRAIN else (blob.data_memory,):
            block = whole_block(memory)
            if isinstance(block, SyncedMemory):
                found[id(block)] = block
    return list(found.values())


def _advice(net: Net, error: DeviceFullError, *, for_blobs: bool) -> str:
    precision = net.context.backend.precision
    narrower = "; --precision bfloat16 needs less" if str(getattr(precision, "value", precision)).endswith("32") else ""
    estimated = largest_batch(net, error, for_blobs=for_blobs)
    if estimated is None:
        return f"Smaller inputs need less{narrower}"
    fitting, sample_bytes = estimated
    kind = "" if net.phase == TRAIN else "TEST "  # whose batch_size is another one
    text = f"The blobs of the {kind}net take about {sample_bytes:,} bytes for each sample"
    if fitting < 1:
        return f"{text}, and not even one would fit beside what else is there (nvidia-smi shows who uses the GPU){narrower}"
    with_iter_size = " (with a larger iter_size the effective batch stays)" if net.phase == TRAIN else ""
    return f"{text}: a batch_size of {fitting} should fit{with_iter_size}{narrower}"
