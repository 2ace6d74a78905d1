"""Gradients in bfloat16 beside a model of them: NumPy's float32, with the same values rounded at the same places."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.rounded_net import ROUNDED_BY_ONEDNN, Gradients, Rounding, gradients, norm
from paratrain.backends import BACKEND_VARIABLE, PRECISION_VARIABLE
from tests.integration.golden_nets import open_nets
from tests.optional import need_bfloat16


@pytest.mark.parametrize("name", ["cifar10_quick", "lenet"])
def test_small_networks_round_what_they_should_and_nothing_else(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deep ones would magnify what the order of sums changes."""
    need_bfloat16()

    def start(backend: str, precision: str) -> Any:
        monkeypatch.setenv(BACKEND_VARIABLE, backend)
        monkeypatch.setenv(PRECISION_VARIABLE, precision)
        return open_nets(name, tmp_path)[0]

    model, rounding = start("numpy", "float32"), Rounding()
    float32 = gradients(model, 0)
    for layer in model.layers:
        rounding.watch(layer)
    rounding.parts = ROUNDED_BY_ONEDNN
    expected = gradients(model, 0, rounding)
    found = gradients(start("onednn", "bfloat16"), 0)
    assert max(distances(found, expected).values()) < 2e-3
    assert max(distances(found, float32).values()) > 4e-2


def distances(found: Gradients, expected: Gradients) -> dict[str, float]:
    return {key: norm(found[key] - value) / norm(value) for key, value in expected.items()}
