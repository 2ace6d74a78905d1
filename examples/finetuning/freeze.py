"""Copy a net with some layers frozen: `python examples/finetuning/freeze.py NET NEW_NET conv1 conv2`.

A layer whose `lr_mult` are all 0 keeps its values, and no gradient is computed for it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from google.protobuf import text_format

from paratrain.proto import NetParameter


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Copy a net prototxt with the learning rates of some layers set to 0.")
    parser.add_argument("net", type=Path)
    parser.add_argument("new_net", type=Path)
    parser.add_argument("layers", nargs="+", metavar="LAYER")
    options = parser.parse_args()
    net = text_format.Parse(options.net.read_text(), NetParameter())
    for name in options.layers:
        (layer,) = (layer for layer in net.layer if layer.name == name)
        for parameter in layer.param:
            parameter.lr_mult = 0
    options.new_net.write_text(text_format.MessageToString(net))
    print(f"{options.new_net}: {', '.join(options.layers)} frozen")


if __name__ == "__main__":
    main()
