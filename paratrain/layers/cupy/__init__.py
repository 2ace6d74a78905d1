"""Layers with kernels on the GPU: the classes of the backend "cupy", each beside the plain one it extends."""

import paratrain.layers.cupy.accuracy
import paratrain.layers.cupy.activation
import paratrain.layers.cupy.concat
import paratrain.layers.cupy.convolution
import paratrain.layers.cupy.data
import paratrain.layers.cupy.deconvolution
import paratrain.layers.cupy.dropout
import paratrain.layers.cupy.eltwise
import paratrain.layers.cupy.im2col
import paratrain.layers.cupy.inner_product
import paratrain.layers.cupy.losses
import paratrain.layers.cupy.lrn
import paratrain.layers.cupy.neuron
import paratrain.layers.cupy.normalization
import paratrain.layers.cupy.pooling
import paratrain.layers.cupy.prelu
import paratrain.layers.cupy.softmax
import paratrain.layers.cupy.split  # noqa: F401  (they register themselves)
