"""cupy.cuda.compiler: its exception."""

from __future__ import annotations

__all__ = ["CompileException"]


class CompileException(Exception):  # noqa: N818
    """What the compiler said, and of what source."""

    def __init__(self, msg: str, source: str, name: str, options: tuple[str, ...], backend: str = "nvrtc") -> None:
        super().__init__(msg)
        self._msg, self.source, self.name, self.options, self.backend = msg, source, name, options, backend
