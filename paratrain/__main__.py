"""`python -m paratrain` is the `paratrain` command, for an environment whose scripts are not on PATH."""

from __future__ import annotations

import sys

from paratrain.launch.cli import main

if __name__ == "__main__":
    sys.exit(main())
