"""``paratrain time --compare``: each layer on every backend that this machine has, side by side."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from paratrain.backends import BACKENDS
from paratrain.backends.cupy.backend import CupyBackend
from paratrain.backends.onednn.backend import OneDnnBackend
from paratrain.backends.onednn.inner_product import OneDnnInnerProduct
from paratrain.check.figures import multiply_adds
from paratrain.check.shapes import ShapedLayer
from paratrain.launch.compare_gpu import kernels_on_gpu, peak_of_gpu
from paratrain.launch.compare_table import Comparison, LayerTimes, Timing
from paratrain.layers import Layer
from paratrain.layers.fused_relu import AppliesReLU
from paratrain.layers.onednn.base import OneDnnLayer
from paratrain.layers.onednn.normalization import OneDnnBatchNormLayer
from paratrain.net import Net
from paratrain.solvers.ranks import Ranks

__all__ = ["comparable_backends", "compare", "kernels_of", "measure_peak", "time_layers"]

logger = logging.getLogger(__name__)

# Layers whose time is that of products of matrices. Others are bound by memory: GFLOP/s would say nothing.
_PRODUCTS = frozenset(
    {"Convolution", "DepthwiseConvolution", "ConvolutionDepthwise", "Deconvolution", "InnerProduct", "LSTM", "RNN"}
)
_PEAK_SIZE = 1536
_PEAK_S = 0.3


@dataclass
class _Timed:
    """A net on one backend, and what its layers have taken so far, in seconds."""

    net: Net
    forward_s: list[float]
    backward_s: list[float]


def comparable_backends(precision: str = "float32") -> list[str]:
    """The backends that work on this machine, in this precision. Logs why another does not."""
    names = []
    for name in BACKENDS.names():
        problem = BACKENDS.get(name).problem()
        if precision not in BACKENDS.get(name).precisions:
            problem = f"it has no {precision}"
        if problem is None:
            names.append(name)
        else:
            logger.warning("The backend %s is left out: %s", name, problem)
    return names


def compare(
    open_net: Callable[[str], Net],
    names: Sequence[str],
    ranks: Ranks,
    iteration_count: int,
    precision: str = "float32",
) -> Comparison:
    """Time the layers of a net on the backends `names`, which take turns, and return what came out.

    `open_net` returns a new net on the backend of a name. All ranks call it; times are means over the ranks.
    """
    timed: dict[str, _Timed] = {}
    try:
        for name in names:
            net = open_net(name)
            timed[name] = _Timed(net, [0.0] * len(net.layers), [0.0] * len(net.layers))
            net.forward_from_to()  # not counted: memory is taken and kernels are chosen
            net.backward_from_to()
        peaks = _measure_peaks(timed)
        for _ in range(iteration_count):
            for one in timed.values():
                _run(one)
        peaks = [max(pair) for pair in zip(peaks, _measure_peaks(timed), strict=True)]
        sums = np.array([*peaks, *(s for one in timed.values() for s in (*one.forward_s, *one.backward_s))])
        ranks.sum_to_root(sums)
        means = (sums / ranks.size).tolist()
        peaks, means = means[: len(names)], means[len(names) :]
        layers = _collect(timed, [value / iteration_count for value in means])
    finally:
        for one in timed.values():
            one.net.close()
    return Comparison(tuple(names), layers, dict(zip(names, peaks, strict=True)), ranks.size, precision)


def time_layers(net: Net) -> tuple[list[float], list[float]]:
    """Run each layer forward and then backward; return the seconds that each took, on a GPU by its own clock."""
    timer, layers = net.context.backend.timer(), range(len(net.layers))
    timer.mark()
    for index in layers:
        net.forward_layer(index)
        timer.mark()
    for index in reversed(layers):
        net.backward_layer(index)
        timer.mark()
    seconds = timer.seconds()
    return seconds[: len(layers)], seconds[len(layers) :][::-1]


def measure_peak(net: Net) -> float:
    """The most multiplications and additions a second that a big matrix product reaches: on a GPU in the precision of `net`'s
    backend, else in float32, by NumPy's BLAS or by that backend, with the threads that this rank computes with.
    """
    if isinstance(net.context.backend, CupyBackend):
        return peak_of_gpu(net.context.backend)
    size = _PEAK_SIZE
    a, b, c = (np.full((size, size), value, np.float32) for value in (0.5, 2.0, 0.0))
    products: list[Callable[[], object]] = [lambda: np.matmul(a, b, out=c)]
    backend = net.context.backend
    if isinstance(backend, OneDnnBackend):
        own = OneDnnInnerProduct(backend.arranger, size, size, size, is_transposed=False, has_bias=False)
        flat = [array.reshape(-1) for array in (a, b, c)]
        products.append(lambda: own.forward(flat[0], flat[1], None, flat[2]))
    return max(2 * size**3 / _least_seconds(product) for product in products)


def kernels_of(net: Net) -> list[str]:
    """For each layer what has computed it in the last pass: oneDNN's names, ``numpy``, or ``with conv1`` where another layer
    did so along with its own; empty for layers that only read. On a GPU one more pass is run, and the names are cuDNN's plans,
    ``cuBLAS``, the families of our own kernels, and ``cupy`` where its own have run, or none.
    """
    if isinstance(net.context.backend, CupyBackend):
        return kernels_on_gpu(net)
    joined: dict[int, str] = {}
    for layer in net.layers:
        for other in _computed_along(layer):
            joined[id(other)] = layer.name
    return [_kernels(net, index, joined) for index in range(len(net.layers))]


def _kernels(net: Net, index: int, joined: dict[int, str]) -> str:
    layer = net.layers[index]
    if layer.is_data:
        return ""
    if id(layer) in joined:
        return f"with {joined[id(layer)]}"
    kernel = layer.latest_kernel if isinstance(layer, OneDnnLayer) else None
    implementations: list[str] = [] if kernel is None else getattr(kernel, "implementations", [])
    return ", ".join(dict.fromkeys(implementations)) or "numpy"


def _computed_along(layer: Layer) -> list[Layer]:
    """The layers that this one has computed along with itself."""
    if not (isinstance(layer, OneDnnLayer) and layer.latest_kernel is not None):
        return []
    if isinstance(layer, OneDnnBatchNormLayer):
        return [other for other in (layer.scale, layer.relu) if other is not None and layer.applies_chain]
    if isinstance(layer, AppliesReLU):
        return [layer.relu] if layer.relu is not None and layer.applies_relu else []
    return []


def _run(timed: _Timed) -> None:
    for index, (forward_s, backward_s) in enumerate(zip(*time_layers(timed.net), strict=True)):
        timed.forward_s[index] += forward_s
        timed.backward_s[index] += backward_s


def _collect(timed: dict[str, _Timed], means: list[float]) -> list[LayerTimes]:
    """Put together what belongs to a layer; `means` has each backend's forward and then its backward times, by layers."""
    nets = {name: one.net for name, one in timed.items()}
    net = next(iter(nets.values()))
    count = len(net.layers)
    kernels = {name: kernels_of(one) for name, one in nets.items()}
    return [
        LayerTimes(
            layer.name,
            layer.type,
            *_operations(net, index),
            {
                name: Timing(
                    means[2 * count * place + index], means[2 * count * place + count + index], kernels[name][index]
                )
                for place, name in enumerate(nets)
            },
        )
        for index, layer in enumerate(net.layers)
    ]


def _operations(net: Net, index: int) -> tuple[int, int]:
    """Multiplications and additions of a layer's forward and backward pass; 0 where products are not what it does."""
    layer = net.layers[index]
    if layer.type not in _PRODUCTS:
        return 0, 0
    shaped = ShapedLayer(layer.parameter, layer, list(net.bottoms[index]), list(net.tops[index]), is_shaped=True)
    forward = 2 * multiply_adds(shaped)
    if not net.layers_needing_backward[index]:
        return forward, 0
    return forward, forward * (bool(layer.param_propagate_down[0]) + any(net.propagate_down[index]))


def _measure_peaks(timed: dict[str, _Timed]) -> list[float]:
    """The peak of each backend; those on the host have one in common."""
    on_host = [one.net for one in timed.values() if one.net.context.backend.device is None]
    of_host = measure_peak(on_host[-1]) if on_host else 0.0
    return [measure_peak(one.net) if one.net.context.backend.device else of_host for one in timed.values()]


def _least_seconds(run: Callable[[], object]) -> float:
    """The shortest of the runs that fit into a moment, three at least."""
    run()
    begin, times = time.perf_counter(), list[float]()
    while len(times) < 3 or time.perf_counter() - begin < _PEAK_S:
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return min(times)
