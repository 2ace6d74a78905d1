"""Layer types: importing this package registers every one of them in ``paratrain.layers.base.LAYERS``.

For scripts (``from paratrain import layers as L``) it also has a function for each type, which describes a layer of it for
a NetSpec: ``L.Convolution(n.data, num_output=20, kernel_size=5)``, see ``paratrain.pycaffe.net_spec``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import paratrain.layers.absval
import paratrain.layers.accuracy
import paratrain.layers.activation
import paratrain.layers.argmax
import paratrain.layers.axpy
import paratrain.layers.batch_norm
import paratrain.layers.batch_reindex
import paratrain.layers.bias
import paratrain.layers.bn
import paratrain.layers.bnll
import paratrain.layers.center_loss
import paratrain.layers.clip
import paratrain.layers.concat
import paratrain.layers.contrastive_loss
import paratrain.layers.convolution
import paratrain.layers.crop
import paratrain.layers.cupy
import paratrain.layers.data
import paratrain.layers.deconvolution
import paratrain.layers.depthwise_convolution
import paratrain.layers.dropout
import paratrain.layers.dummy_data
import paratrain.layers.eltwise
import paratrain.layers.elu
import paratrain.layers.embed
import paratrain.layers.euclidean_loss
import paratrain.layers.exp_log
import paratrain.layers.filter
import paratrain.layers.flatten
import paratrain.layers.focal_loss
import paratrain.layers.hdf5_data
import paratrain.layers.hdf5_output
import paratrain.layers.hinge_loss
import paratrain.layers.im2col
import paratrain.layers.image_data
import paratrain.layers.infogain_loss
import paratrain.layers.inner_product
import paratrain.layers.input
import paratrain.layers.interp
import paratrain.layers.l1_loss
import paratrain.layers.lrn
import paratrain.layers.lstm
import paratrain.layers.lstm_unit
import paratrain.layers.memory_data
import paratrain.layers.multinomial_logistic_loss
import paratrain.layers.mvn
import paratrain.layers.normalize
import paratrain.layers.onednn
import paratrain.layers.parameter
import paratrain.layers.permute
import paratrain.layers.pooling
import paratrain.layers.power
import paratrain.layers.prelu
import paratrain.layers.python
import paratrain.layers.reduction
import paratrain.layers.relu6
import paratrain.layers.reshape
import paratrain.layers.rnn
import paratrain.layers.roi_pooling
import paratrain.layers.scale
import paratrain.layers.shuffle_channel
import paratrain.layers.sigmoid_cross_entropy_loss
import paratrain.layers.silence
import paratrain.layers.slice
import paratrain.layers.softmax
import paratrain.layers.softmax_loss
import paratrain.layers.split
import paratrain.layers.spp
import paratrain.layers.swish
import paratrain.layers.tile
import paratrain.layers.upsample
import paratrain.layers.window_data  # noqa: F401
from paratrain.layers.base import LAYERS, Clock, Layer, LayerContext, create_layer, register_layer

__all__ = ["LAYERS", "Clock", "Layer", "LayerContext", "create_layer", "register_layer"]

if not TYPE_CHECKING:  # a misspelt name within paratrain stays an error for mypy

    def __getattr__(name: str) -> Any:
        if name in LAYERS or name[:1].isupper():  # as Caffe's layer types begin
            return getattr(importlib.import_module("paratrain.pycaffe.net_spec").layers, name)
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")

    def __dir__() -> list[str]:
        return sorted({*globals(), *LAYERS.names()})
