"""Starting a helper, as the first rank of a host does."""

from __future__ import annotations

import json
import selectors
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from paratrain.errors import CommunicationError
from paratrain.watching.settings import WatchSettings
from paratrain.watching.wire import Wire

__all__ = ["start_helper"]

_START_S = 30.0
_PROGRAM = "import sys; sys.path.insert(0, {folder!r}); from paratrain.watching.program import main; main()"


def start_helper(
    *, node: int, node_count: int, local_count: int, rank_count: int, token: str, settings: WatchSettings
) -> dict[str, Any]:
    """Start the helper of a host and return what it answers: where ranks and, on host 0, other helpers find it.

    Raises CommunicationError where it cannot be started.
    """
    configuration = {
        "node": node,
        "node_count": node_count,
        "local_count": local_count,
        "rank_count": rank_count,
        "token": token,
        "settings": asdict(settings),
    }
    # Isolated and without site-packages: it starts quickly, and needs nothing but this package.
    program = _PROGRAM.format(folder=str(Path(__file__).resolve().parents[2]))
    command = [sys.executable, "-I", "-S", "-c", program]
    try:
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps(configuration).encode() + b"\n")
            process.stdin.close()
            with selectors.DefaultSelector() as selector:
                selector.register(process.stdout, selectors.EVENT_READ)
                answer = process.stdout.readline() if selector.select(_START_S) else b""
            if not answer:
                process.kill()
                raise CommunicationError(f"the watcher did not start (exit code {process.wait()})")
        return Wire.parse(answer)
    except (OSError, ValueError) as error:
        raise CommunicationError(f"the watcher did not start: {error}") from error
