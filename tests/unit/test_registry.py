"""The table of named things."""

from __future__ import annotations

import pytest

from paratrain.errors import UnknownNameError
from paratrain.registry import Registry, nearest


def test_adding_a_name_twice_is_an_error() -> None:
    table: Registry[int] = Registry("fruit")
    table.add("apple", 1)
    with pytest.raises(ValueError, match="fruit 'apple' is registered twice"):
        table.add("apple", 2)
    assert table.get("apple") == 1


def test_an_unknown_name_lists_the_nearest_or_else_the_known() -> None:
    table: Registry[int] = Registry("layer type")
    for number, name in enumerate(["Convolution", "Deconvolution", "ReLU"]):
        table.add(name, number)
    with pytest.raises(UnknownNameError) as caught:
        table.get("convolutoin")
    assert "unknown layer type 'convolutoin'; did you mean 'Convolution'" in str(caught.value)
    assert "(known: " not in str(caught.value)
    with pytest.raises(UnknownNameError) as caught:
        table.get("zzz")
    assert str(caught.value) == "unknown layer type 'zzz' (known: Convolution, Deconvolution, ReLU)"


def test_nearest_ignores_case_and_leaves_the_unlike_out() -> None:
    assert nearest("relu", ["ReLU", "Pooling"]) == ["ReLU"]
    assert nearest("zzz", ["ReLU", "Pooling"]) == []
