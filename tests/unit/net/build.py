"""Nets written as text, for tests."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from paratrain.backends import create_backend
from paratrain.layers.base import LayerContext
from paratrain.net import Net
from paratrain.proto import TRAIN, NetParameter, Phase, parse_prototxt

DATA = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 } } }'
LABEL = 'layer { name: "label" type: "Input" top: "label" input_param { shape { dim: 2 } } }'


def inner_product(name: str, bottom: str, top: str, count: int = 4, extra: str = "") -> str:
    """The text of an InnerProduct layer."""
    return f"""layer {{ name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{top}" {extra}
        inner_product_param {{ num_output: {count} weight_filler {{ type: "gaussian" std: 0.5 }} }} }}"""


def build(*layers: str, phase: Phase = TRAIN, dtype: npt.DTypeLike = np.float32, seed: int = 1) -> Net:
    """The net of these layers."""
    context = LayerContext(backend=create_backend(), phase=phase, dtype=dtype, seed=seed)
    return Net(parse_prototxt("\n".join(layers), NetParameter), context)
