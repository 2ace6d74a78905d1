"""What is wrong with a network or a solver, all of it at once, and what it costs; nothing is trained."""

from paratrain.check.file import Report, check_file

__all__ = ["Report", "check_file"]
