"""A linear regression over the records of a database: small enough to follow by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from paratrain.backends import create_backend
from paratrain.data import LmdbWriter
from paratrain.proto import Datum, SolverParameter, parse_prototxt
from paratrain.solvers import Solver, create_solver

NET = """
name: "line"
layer {{ name: "records" type: "Data" top: "x" top: "y"
  data_param {{ source: "{source}" batch_size: {batch_size} backend: LMDB }} }}
layer {{ name: "line" type: "InnerProduct" bottom: "x" top: "prediction" {params}
  inner_product_param {{ num_output: 1 bias_term: {bias} weight_filler {{ type: "constant" value: {start} }} }} }}
layer {{ name: "flat" type: "Reshape" bottom: "prediction" top: "flat" reshape_param {{ shape {{ dim: -1 }} }} }}
layer {{ name: "loss" type: "EuclideanLoss" bottom: "flat" bottom: "y" top: "loss" }}
"""


def write_records(folder: Path, inputs: npt.ArrayLike, labels: list[int]) -> Path:
    """Write a database of records with inputs (N, C) and whole labels (N,)."""
    path = folder / "records_lmdb"
    values = np.asarray(inputs, np.float32)
    with LmdbWriter(path) as writer:
        for index, (row, label) in enumerate(zip(values, labels, strict=True)):
            datum = Datum(channels=len(row), height=1, width=1, label=label)
            datum.float_data.extend(float(value) for value in row)
            writer.put(b"%08d" % index, datum.SerializeToString())
    return path


def random_records(folder: Path, count: int = 24, width: int = 3) -> Path:
    rng = np.random.default_rng(7)
    return write_records(folder, rng.normal(size=(count, width)), [int(y) for y in rng.integers(-3, 4, count)])


def make_solver(
    source: Path,
    settings: str,
    *,
    batch_size: int = 1,
    start: float = 0.5,
    bias: bool = False,
    params: str = "",
    rank: int = 0,
    size: int = 1,
) -> Solver:
    """A solver of ``type: "SGD"`` unless ``settings`` says otherwise, over the net above."""
    parameter = SolverParameter(random_seed=1, snapshot_after_train=False)
    parameter.MergeFrom(parse_prototxt(settings, SolverParameter))
    net = NET.format(source=source, batch_size=batch_size, start=start, bias=str(bias).lower(), params=params)
    merged = parse_prototxt(f"net_param {{ {net} }}", SolverParameter)
    parameter.net_param.CopyFrom(merged.net_param)
    return create_solver(parameter, backend=create_backend(), rank=rank, size=size)


def weights(solver: Solver) -> list[float]:
    """The learned values, one after the other."""
    return [float(value) for blob in solver.net.params["line"] for value in blob.data.reshape(-1)]
