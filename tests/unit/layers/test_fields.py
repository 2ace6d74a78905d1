"""Which parameter message belongs to which layer type."""

from __future__ import annotations

import inspect
import re

import pytest

from paratrain.layers import LAYERS
from paratrain.layers.fields import misplaced_fields, reads
from paratrain.proto import LayerParameter, NetParameter, read_prototxt, upgrade_net
from paratrain.proto.fork_layers import FORK_LAYERS
from tests.paths import GOLDEN


@pytest.mark.parametrize("kind", LAYERS.names())
def test_every_message_that_a_layer_looks_into_counts_as_its_own(kind: str) -> None:
    for ancestor in LAYERS.get(kind).__mro__:
        if ancestor.__module__.startswith("paratrain.layers"):
            for name in re.findall(r"self\.parameter\.(\w+_param)\b", inspect.getsource(ancestor)):
                assert reads(kind, name), f"{kind} looks into {name}"


@pytest.mark.parametrize(
    "path", sorted(path for path in GOLDEN.rglob("*.prototxt") if "solver" not in path.name), ids=lambda path: path.stem
)
def test_no_field_of_a_network_that_caffe_ran_is_misplaced(path: object) -> None:
    for layer in upgrade_net(read_prototxt(str(path), NetParameter)).layer:
        assert list(misplaced_fields(layer)) == []


def test_a_type_that_paratrain_has_is_not_listed_as_missing() -> None:
    assert [kind for kind in LAYERS.names() if kind in FORK_LAYERS] == []


def test_types_from_outside_read_what_they_like() -> None:
    layer = LayerParameter(name="a", type="MyOwnConvolution")
    layer.pooling_param.kernel_size = 3
    assert list(misplaced_fields(layer)) == []
    layer.type = "Convolution"
    [sentence] = misplaced_fields(layer)
    assert sentence.startswith("layer 'a' (Convolution): pooling_param is given, which layers of type Pooling read")
