"""Work for a stream, recorded as a CUDA graph."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from typing import Any

from paratrain import gpu
from paratrain.backends.cupy.workspace import Used
from paratrain.errors import BackendError, DeviceError

__all__ = ["CudaGraph", "capture"]

logger = logging.getLogger(__name__)


class CudaGraph:
    """What was captured from a stream, to be started there again. It uses the same addresses each time."""

    def __init__(self, graph: Any, stream: Any) -> None:
        self._graph = graph
        self._stream = stream
        self.before: Callable[[], None] | None = None
        """What has to be called before each replay, if anything has; its object lives as long as the graph."""
        self.used: Used | None = None
        """What else has to live as long."""

    def replay(self) -> None:
        """Put all of it into the stream at once."""
        if self.before is not None:
            self.before()
        self._graph.launch(self._stream)


def capture(stream: Any, run: Callable[[], None]) -> CudaGraph | None:
    """Call ``run`` while ``stream`` captures what is put into it, and return that; None, with a line in the log, where it did
    something that cannot be captured (allocate memory, wait for the GPU, or call a library that refuses), or a graph has no
    room on the GPU.
    """
    cupy = gpu.library()
    problem: BaseException | None = None
    # What is collected meanwhile might be a handle of cuDNN or cuBLAS, whose end waits for the GPU: that would void the capture.
    collects = gc.isenabled()
    gc.disable()
    try:
        stream.begin_capture()
        try:
            # Memory of the pool would go to others after the capture, while the graph still used it.
            with cupy.cuda.using_allocator(_refuse):
                run()
        except BaseException as error:
            problem = error
        try:
            graph = stream.end_capture()  # whatever has happened: nothing else could be done with the stream
            graph.upload(stream)  # for which the GPU may have no memory left
        except RuntimeError as error:
            problem = problem or error
    finally:
        if collects:
            gc.enable()
    if problem is not None:
        if not isinstance(problem, (RuntimeError, BackendError, DeviceError)):
            raise problem
        logger.info("Work could not be recorded for the GPU: %s", problem)
        return None
    return CudaGraph(graph, stream)


def _refuse(byte_count: int) -> Any:
    raise RuntimeError(f"{byte_count:,} bytes were to be allocated in the middle of a recording")
