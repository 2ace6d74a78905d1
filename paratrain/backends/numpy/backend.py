"""The numpy backend: arrays on the host, primitives of numpy operations and BLAS products."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from paratrain.backends.base import (
    BACKENDS,
    Backend,
    Convolution,
    ConvolutionGeometry,
    Im2col,
    LocalResponseGeometry,
    LocalResponseNormalization,
    Pooling,
    PoolingGeometry,
    PoolMethod,
)
from paratrain.backends.numpy.convolution import create_convolution
from paratrain.backends.numpy.depthwise import DepthwiseConvolution
from paratrain.backends.numpy.global_pooling import GlobalAveragePooling
from paratrain.backends.numpy.im2col import NumpyIm2col
from paratrain.backends.numpy.lrn import NumpyLocalResponseNormalization
from paratrain.backends.numpy.pooling import AveragePooling, MaxPooling, WindowPooling
from paratrain.backends.numpy.scratch import Scratch
from paratrain.backends.numpy.stochastic_pooling import StochasticPooling
from paratrain.backends.numpy.tiled_pooling import TiledMaxPooling

__all__ = ["NumpyBackend"]

_POOLINGS: dict[PoolMethod, type[WindowPooling]] = {
    PoolMethod.MAX: MaxPooling,
    PoolMethod.AVE: AveragePooling,
    PoolMethod.STOCHASTIC: StochasticPooling,
}


@BACKENDS.register("numpy")
class NumpyBackend(Backend):
    """Computes with numpy on the host. Every primitive works for float32 and float64 and gives the same bits each run.

    All primitives of one backend share one block of scratch memory, so one thread at a time may run them.
    """

    name = "numpy"
    xp = np
    device = None
    precisions: ClassVar[tuple[str, ...]] = ("float32",)

    def __init__(self, precision: str = "float32") -> None:
        super().__init__(precision)
        self.scratch = Scratch()

    @property
    def description(self) -> str:
        return f"numpy {np.__version__}"

    def convolution(self, geometry: ConvolutionGeometry, dtype: npt.DTypeLike) -> Convolution:
        if DepthwiseConvolution.suits(geometry):
            return DepthwiseConvolution(geometry, dtype, self.scratch)
        return create_convolution(geometry, dtype, self.scratch)

    def im2col(self, geometry: ConvolutionGeometry, dtype: npt.DTypeLike) -> Im2col:
        return NumpyIm2col(geometry, dtype, self.scratch)

    def pooling(self, geometry: PoolingGeometry, dtype: npt.DTypeLike) -> Pooling:
        kind = _POOLINGS[geometry.method]
        if kind is MaxPooling and TiledMaxPooling.suits(geometry):
            kind = TiledMaxPooling
        elif kind is AveragePooling and GlobalAveragePooling.suits(geometry):
            kind = GlobalAveragePooling
        return kind(geometry, dtype, self.scratch)

    def local_response_normalization(
        self, geometry: LocalResponseGeometry, dtype: npt.DTypeLike
    ) -> LocalResponseNormalization:
        return NumpyLocalResponseNormalization(geometry, dtype, self.scratch)

    def matrix_product(self, a: Any, b: Any, out: Any, *, accumulate: bool = False) -> None:
        if not accumulate:
            np.matmul(a, b, out=out)
            return
        (product,) = self.scratch.take((out.shape, out.dtype))
        np.matmul(a, b, out=product)
        np.add(out, product, out=out)

    def synchronize(self) -> None:
        """numpy works while it is called: nothing is ever pending."""
