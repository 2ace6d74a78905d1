"""What ``paratrain time --compare`` asks of a GPU: its fastest product, and which kernels run."""

from __future__ import annotations

from paratrain.backends.cupy.backend import CupyBackend
from paratrain.backends.cupy.noting import noting
from paratrain.layers import Layer
from paratrain.layers.cupy.base import CupyLayer
from paratrain.layers.fused_relu import AppliesReLU
from paratrain.layers.normalization_chain import ChainHead
from paratrain.net import Net

__all__ = ["kernels_on_gpu", "peak_of_gpu"]

_LEAST_SIZE, _MOST_SIZE = 1024, 8192
_LONG_ENOUGH_S = 2e-3
_RUNS = 5


def peak_of_gpu(backend: CupyBackend) -> float:
    """Multiplications and additions a second of the quickest of a few big matrix products, in the type in which the backend
    stores activations. They grow until one takes long enough.
    """
    size, timer = _LEAST_SIZE, backend.timer()
    while True:
        a, b, c = (backend.xp.ones((size, size), backend.precision.storage) for _ in range(3))
        times: list[float] = []
        for _ in range(_RUNS + 1):
            timer.mark()
            backend.matrix_product(a, b, c)
            timer.mark()
            times.append(timer.seconds()[0])
        if size >= _MOST_SIZE or min(times[1:]) > _LONG_ENOUGH_S:
            return 2 * size**3 / min(times[1:])
        size *= 2


def kernels_on_gpu(net: Net) -> list[str]:
    """Run a pass, layer by layer, and return for each what has computed it: see :func:`paratrain.launch.compare.kernels_of`."""
    forward: list[list[str]] = []
    names: list[list[str]] = []
    for index in range(len(net.layers)):
        with noting() as noted:
            net.forward_layer(index)
        forward.append(noted)
        names.append(list(noted))
    for index in reversed(range(len(net.layers))):
        with noting() as noted:
            net.backward_layer(index)
        names[index] += noted
    joined = {id(other): layer.name for layer in net.layers for other in _may_compute(layer)}
    return [_kernel_on_gpu(net, index, forward[index], names[index], joined) for index in range(len(net.layers))]


def _kernel_on_gpu(net: Net, index: int, forward: list[str], names: list[str], joined: dict[int, str]) -> str:
    layer, tops, bottoms = net.layers[index], net.tops[index], net.bottoms[index]
    if not forward and id(layer) in joined:
        return f"with {joined[id(layer)]}"
    shows_bottoms = {id(blob.data_memory) for blob in tops} <= {id(blob.data_memory) for blob in bottoms}
    if not (bottoms and names) and (shows_bottoms or not bottoms):
        return ", ".join(dict.fromkeys(names))
    runs_array_code = not isinstance(layer, CupyLayer) or not names
    return ", ".join(dict.fromkeys([*names, "cupy"] if runs_array_code else names))


def _may_compute(layer: Layer) -> list[Layer]:
    """The layers that this one may have computed along with itself, on a GPU."""
    others = [layer.scale, layer.relu] if isinstance(layer, ChainHead) else []
    if isinstance(layer, AppliesReLU):
        others.append(layer.relu)
    return [other for other in others if other is not None]
