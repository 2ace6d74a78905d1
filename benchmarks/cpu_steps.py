"""Time training steps of five networks on the CPU, beside PyTorch in the same run: the table of the CPU backend.

    python benchmarks/cpu_steps.py --peer-python python --save benchmarks/results/cpu_steps.md

What a step is, and how the two take turns, is described in ``step.py``; this runs it for each network.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from machine import REPOSITORY, describe
from step import compare

NETS = {
    "lenet": (64, "1x28x28", 30),
    "cifar10_quick": (100, "3x32x32", 15),
    "caffenet": (16, "3x227x227", 4),
    "googlenet": (16, "3x224x224", 3),
    "resnet50": (8, "3x224x224", 3),
}
"""Name, batch, shape of a sample, and timed steps of a turn."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", default=",".join(NETS))
    parser.add_argument("--threads", default="1", help="numbers of threads, divided by commas")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each side")
    parser.add_argument("--backend", default="onednn")
    parser.add_argument("--peer-python", help="a Python that has torch")
    parser.add_argument("--save", help="also write the tables to this file")
    options = parser.parse_args()
    text = "\n".join(["# Training steps on the CPU", "", describe()])
    print(text, flush=True)
    for name in options.nets.split(","):
        options.net = str(REPOSITORY / "tests" / "golden" / "nets" / f"{name}.prototxt")
        options.batch, options.shape, options.iters = NETS[name]
        for threads in map(int, options.threads.split(",")):
            lines = compare(argparse.Namespace(**{**vars(options), "threads": threads}))
            print("\n" + "\n".join(lines), flush=True)
            text += "\n\n" + "\n".join(lines)
            if options.save:
                Path(options.save).write_text(text + "\n")


if __name__ == "__main__":
    main()
