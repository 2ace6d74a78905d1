"""Run one layer on a golden case: what Caffe computed for the same inputs, parameters and output gradients.

A case is NAME.prototxt (a net whose layer under test is called "layer") and NAME.npz with ``in/BLOB``, ``param/I``,
``out/BLOB``, ``dout/BLOB``, ``din/BLOB``, ``dparam/I`` and, for running statistics, ``param_after/I``.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf import text_format

from paratrain.blob import Blob
from paratrain.proto import TEST, TRAIN, NetParameter
from tests.gradient_check import LayerRun, set_up_layer
from tests.paths import GOLDEN

__all__ = ["GOLDEN_FOLDER", "golden_names", "run_golden_case"]

GOLDEN_FOLDER = GOLDEN / "layers"


def golden_names(*prefixes: str) -> list[str]:
    """Return the names of the cases that start with one of ``prefixes``."""
    names = sorted(path.stem for path in GOLDEN_FOLDER.glob("*.npz"))
    return [name for name in names if name.startswith(prefixes)]


def run_golden_case(
    name: str, *, rtol: float = 1e-4, atol: float = 1e-5, of_largest: float = 0.0, backend: str = "numpy"
) -> LayerRun:
    """Compare forward and backward of a float32 layer with the case; return the layer and its blobs as they are then.

    Each value may differ by ``atol`` plus ``rtol`` of its size plus ``of_largest`` of the largest of its array.
    """
    text = (GOLDEN_FOLDER / f"{name}.prototxt").read_text()
    with np.load(GOLDEN_FOLDER / f"{name}.npz") as archive:
        case = {key: archive[key] for key in archive.files}
    phase_name = re.match(r"# phase: (\w+)", text)
    assert phase_name is not None
    net = text_format.Parse(text, NetParameter())
    (parameter,) = [layer for layer in net.layer if layer.name == "layer"]
    bottom_names, top_names = list(parameter.bottom), list(parameter.top)
    run = set_up_layer(
        parameter,
        [case[f"in/{bottom}"] for bottom in bottom_names],
        dtype=np.float32,
        backend=backend,
        phase=TRAIN if phase_name.group(1) == "TRAIN" else TEST,
        in_place=bool(top_names) and top_names[:1] == bottom_names[:1],
        top_count=len(top_names),
    )
    layer, bottoms, tops = run.layer, run.bottoms, run.tops
    given = [key for key in case if key.startswith("param/")]
    assert len(given) == len(layer.blobs), f"{name}: Caffe has {len(given)} parameter blobs, we have {len(layer.blobs)}"
    for index, blob in enumerate(layer.blobs):
        assert blob.shape == case[f"param/{index}"].shape, f"{name}: parameter {index}"
        blob.data[...] = case[f"param/{index}"]
    layer.forward(bottoms, tops)

    def compare(kind: str, key: str, values: npt.NDArray[Any]) -> None:
        expected = case.get(f"{kind}/{key}")
        if expected is not None:
            message = f"{name}: {kind}/{key}"
            assert values.shape == expected.shape, message
            most = atol + of_largest * float(np.abs(expected).max(initial=0))
            np.testing.assert_allclose(values, expected, rtol=rtol, atol=most, err_msg=message)

    by_top: dict[str, Blob] = dict(zip(top_names, tops, strict=True))
    for top_name, top in by_top.items():
        compare("out", top_name, top.data)
    for index, blob in enumerate(layer.blobs):
        compare("param_after", str(index), blob.data)
    if not any(key.startswith("d") for key in case):
        return run
    for top_name, top in by_top.items():
        given_diff = case.get(f"dout/{top_name}")
        if given_diff is not None and layer.is_loss:
            np.testing.assert_allclose(top.diff, given_diff, err_msg=f"{name}: the loss weight of {top_name}")
        elif given_diff is not None:
            top.diff[...] = given_diff
    # An all-zero gradient means that Caffe propagates nothing there (a label, an index).
    propagate = [bool(case.get(f"din/{bottom}", np.zeros(1)).any()) for bottom in bottom_names]
    for blob in layer.blobs:
        blob.diff[...] = 0
    layer.backward(tops, propagate, bottoms)
    for bottom_name, bottom, down in zip(bottom_names, bottoms, propagate, strict=True):
        if down:
            compare("din", bottom_name, bottom.diff)
    for index, blob in enumerate(layer.blobs):
        compare("dparam", str(index), blob.diff)
    return run
