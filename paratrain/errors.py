"""Every error that paratrain raises on purpose.

::

    ParatrainError
      PrototxtError               a text file that cannot be read as the message it should hold
      NetError                    a network that cannot be built
        UnknownNameError          a name nobody registered: a layer type, a solver, a filler, a policy
        LayerError                one layer that cannot work as it is described or wired
          ShapeMismatchError      blobs whose shapes do not fit together
      SolverError                 solver settings that contradict each other
      RanksDifferError            ranks that hold different parameters, where they should be the same
      NotFiniteError              a loss or gradient that is infinite or not a number
        SpoiltParametersError       parameters that are not fit to be written or trained on
      SnapshotError               weights or a training state that cannot be read, written or used
      ExportError                 a network that another format cannot say
      DataError                   a source of records that cannot be opened or holds something else
      CommunicationError          ranks that cannot find, reach or understand each other
      TopologyError               a machine description that cannot be read
      DeviceError                 a GPU that is asked for and not there, or that fails
        DeviceFullError           a GPU without enough memory
      BackendError                a library of arithmetic that cannot be used, or that fails
      MissingDependencyError      an optional library that is not installed

A message says where, what was expected, what was found and what to do. Broken invariants of paratrain itself are plain
``assert``; they are bugs, not errors of the user. Nothing here prints or exits: only the command line does.
"""

from __future__ import annotations

__all__ = [
    "BackendError",
    "CommunicationError",
    "DataError",
    "DeviceError",
    "DeviceFullError",
    "ExportError",
    "LayerError",
    "MissingDependencyError",
    "NetError",
    "NotFiniteError",
    "ParatrainError",
    "PrototxtError",
    "RanksDifferError",
    "ShapeMismatchError",
    "SnapshotError",
    "SolverError",
    "SpoiltParametersError",
    "TopologyError",
    "UnknownNameError",
]


class ParatrainError(Exception):
    """The root of the tree: catching it catches whatever paratrain raises on purpose."""


class PrototxtError(ParatrainError):
    """A prototxt file that cannot be read: ``file:line:column: what was found, what is allowed``.

    ``path``, ``line`` and ``column`` (both counted from 1) are None where there is nothing to point at.
    """

    def __init__(
        self, message: str, path: str | None = None, line: int | None = None, column: int | None = None
    ) -> None:
        place = ":".join(str(part) for part in (path, line, column) if part is not None)
        super().__init__(f"{place}: {message}" if place else message)
        self.path = path
        self.line = line
        self.column = column


class NetError(ParatrainError):
    """A network that cannot be built as described."""


class UnknownNameError(NetError):
    """A name that nobody registered; the message has the nearest known names, or else lists them all."""


class LayerError(NetError):
    """A layer that cannot work as it is described or wired: ``layer 'conv1' (Convolution): ...``."""


class ShapeMismatchError(LayerError):
    """Blobs whose shapes do not fit together; the message names both shapes."""


class SolverError(ParatrainError):
    """Solver settings that are missing, contradict each other or have no meaning."""


class RanksDifferError(ParatrainError):
    """Ranks whose parameters, or places in the run, are not the same; the message names the first. All ranks raise the same."""


class NotFiniteError(ParatrainError):
    """A loss or gradient that is infinite or not a number; the message says where it began. All ranks raise the same."""


class SpoiltParametersError(NotFiniteError):
    """Values that an update has spoilt, found before they are written to a snapshot. Raised on the root alone."""


class SnapshotError(ParatrainError):
    """A caffemodel or solverstate that cannot be read, written, or used for this network."""


class ExportError(ParatrainError):
    """A network that cannot be said in another program's format; the message lists every layer that stands in the way."""


class DataError(ParatrainError):
    """A database, list or record that is missing or is not what its layer expects."""


class CommunicationError(ParatrainError):
    """Ranks that cannot find or understand each other: ``rank 2 of 4: ...``."""


class OtherRankFailedError(CommunicationError):
    """Another rank could not do what all do together. It has the reason, and tells it."""


class TopologyError(ParatrainError):
    """A machine description that cannot be read."""


class DeviceError(ParatrainError):
    """A GPU that was asked for and is not there, or that fails."""


class DeviceFullError(DeviceError):
    """A GPU that has less memory left than is wanted. ``used_bytes`` is what this process uses of it, ``free_bytes`` what it can
    still get.
    """

    def __init__(self, message: str, *, wanted_bytes: int, free_bytes: int, used_bytes: int) -> None:
        super().__init__(message)
        self.wanted_bytes = wanted_bytes
        self.free_bytes = free_bytes
        self.used_bytes = used_bytes


class BackendError(ParatrainError):
    """A library that does a backend's arithmetic and cannot be loaded here, or that reports a failure."""


class MissingDependencyError(ParatrainError):
    """An optional library that is not installed; the message gives the ``pip install`` that brings it, or the ``problem`` with
    one that is there and does not load.
    """

    def __init__(self, library: str, purpose: str, extra: str, problem: str = "") -> None:
        brought = f"pip install 'paratrain[{extra}]'"
        super().__init__(
            f"{purpose} needs {library}, which is installed but does not load ({problem}); {brought} brings what fits"
            if problem
            else f"{purpose} needs {library}, which is not installed: {brought}"
        )
        self.library = library
        self.extra = extra
