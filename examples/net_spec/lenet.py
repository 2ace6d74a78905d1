"""LeNet, written with NetSpec: `python examples/net_spec/lenet.py` writes the prototxts of a net and its solver."""

from __future__ import annotations

import argparse
from pathlib import Path

import paratrain as caffe
from paratrain import layers as L
from paratrain import params as P

SCALE = 1 / 256
LEARNING_RATES = [dict(lr_mult=1), dict(lr_mult=2)]
FILLERS = dict(weight_filler=dict(type="xavier"), bias_filler=dict(type="constant"))


def lenet(database: str | None, batch_size: int, *, hidden: int = 500) -> caffe.NetSpec:
    """The net on a database, with loss and accuracy; without a database the net that is to be used, with probabilities."""
    n = caffe.NetSpec()
    if database is None:
        n.data = L.Input(shape=dict(dim=[batch_size, 1, 28, 28]))
    else:
        source = dict(source=database, batch_size=batch_size, backend=P.Data.LMDB)
        n.data, n.label = L.Data(**source, transform_param=dict(scale=SCALE), ntop=2)
    bottom = n.data
    for index, count in enumerate((20, 50), start=1):
        n[f"conv{index}"] = L.Convolution(bottom, num_output=count, kernel_size=5, param=LEARNING_RATES, **FILLERS)
        n[f"pool{index}"] = L.Pooling(n[f"conv{index}"], pool=P.Pooling.MAX, kernel_size=2, stride=2)
        bottom = n[f"pool{index}"]
    n.ip1 = L.InnerProduct(bottom, num_output=hidden, param=LEARNING_RATES, **FILLERS)
    n.relu1 = L.ReLU(n.ip1, in_place=True)
    n.ip2 = L.InnerProduct(n.relu1, num_output=10, param=LEARNING_RATES, **FILLERS)
    if database is None:
        n.prob = L.Softmax(n.ip2)
    else:
        n.accuracy = L.Accuracy(n.ip2, n.label)
        n.loss = L.SoftmaxWithLoss(n.ip2, n.label)
    return n


def write(folder: Path) -> Path:
    """Write the nets for training, for the test and for use, and the solver, whose path is returned."""
    nets = {
        "train": lenet("demo-output/digits_train_lmdb", 64),
        "test": lenet("demo-output/digits_test_lmdb", 99),
        "deploy": lenet(None, 1),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, net in nets.items():
        (folder / f"{name}.prototxt").write_text(str(net.to_proto()))
    solver = caffe.proto.caffe_pb2.SolverParameter(
        train_net=str(folder / "train.prototxt"),
        test_net=[str(folder / "test.prototxt")],
        test_iter=[3],  # 3 batches of 99 are the 297 test digits
        test_interval=400,
        test_initialization=False,
        base_lr=0.01,
        momentum=0.9,
        weight_decay=0.0005,
        lr_policy="inv",
        gamma=0.0001,
        power=0.75,
        max_iter=400,
        snapshot_prefix=str(folder / "lenet"),
        solver_mode=caffe.proto.caffe_pb2.SolverParameter.CPU,
        random_seed=1,
    )
    (folder / "solver.prototxt").write_text(str(solver))
    return folder / "solver.prototxt"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Write the prototxts of LeNet and its solver.")
    parser.add_argument("folder", type=Path, nargs="?", default=Path("demo-output/net_spec"))
    print(f"Wrote {write(parser.parse_args().folder)} and the nets that it names")


if __name__ == "__main__":
    main()
