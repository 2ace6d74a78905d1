"""All tests of this folder run on the simulated GPU."""

from tests.simulated_gpu_path import simulated_gpu  # noqa: F401
