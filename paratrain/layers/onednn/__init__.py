"""Layers that run on oneDNN where it has a kernel: the classes of the backend "onednn", each beside the plain one it extends."""

import paratrain.layers.onednn.activation
import paratrain.layers.onednn.concat
import paratrain.layers.onednn.convolution
import paratrain.layers.onednn.deconvolution
import paratrain.layers.onednn.eltwise
import paratrain.layers.onednn.inner_product
import paratrain.layers.onednn.lrn
import paratrain.layers.onednn.neuron
import paratrain.layers.onednn.normalization
import paratrain.layers.onednn.pooling
import paratrain.layers.onednn.split  # noqa: F401  (they register themselves)
