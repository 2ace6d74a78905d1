"""Train the net that lenet.py has written, with a loop of one's own: `python examples/net_spec/train.py`."""

from __future__ import annotations

import argparse

import paratrain as caffe


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Train LeNet, and save its weights.")
    parser.add_argument("solver", nargs="?", default="demo-output/net_spec/solver.prototxt")
    parser.add_argument("--iterations", type=int, default=400)
    options = parser.parse_args()
    caffe.set_mode_cpu()
    solver = caffe.SGDSolver(options.solver)
    while solver.iter < options.iterations:
        solver.step(min(50, options.iterations - solver.iter))
        net = solver.test_nets[0]
        net.share_with(solver.net)
        accuracy = sum(float(net.forward()["accuracy"]) for _ in range(3)) / 3
        print(f"iteration {solver.iter}: loss {float(solver.net.blobs['loss'].data):.3f}, accuracy {accuracy:.3f}")
    weights = options.solver.replace("solver.prototxt", "lenet.caffemodel")
    solver.net.save(weights)
    print(f"Saved {weights}")


if __name__ == "__main__":
    main()
