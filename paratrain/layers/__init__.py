"""Layer types: importing this package registers every one of them in ``paratrain.layers.base.LAYERS``."""

from __future__ import annotations

import paratrain.layers.accuracy
import paratrain.layers.activation
import paratrain.layers.batch_norm
import paratrain.layers.concat
import paratrain.layers.convolution
import paratrain.layers.data
import paratrain.layers.dropout
import paratrain.layers.dummy_data
import paratrain.layers.eltwise
import paratrain.layers.euclidean_loss
import paratrain.layers.flatten
import paratrain.layers.inner_product
import paratrain.layers.input
import paratrain.layers.lrn
import paratrain.layers.memory_data
import paratrain.layers.pooling
import paratrain.layers.power
import paratrain.layers.reshape
import paratrain.layers.scale
import paratrain.layers.silence
import paratrain.layers.slice
import paratrain.layers.softmax
import paratrain.layers.softmax_loss
import paratrain.layers.split  # noqa: F401
from paratrain.layers.base import LAYERS, Clock, Layer, LayerContext, create_layer, register_layer

__all__ = ["LAYERS", "Clock", "Layer", "LayerContext", "create_layer", "register_layer"]
