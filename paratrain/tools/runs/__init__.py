"""Runs of training, read from what they have written: logs in Caffe's form, and metrics."""

from paratrain.tools.runs.log import read_log
from paratrain.tools.runs.opening import open_run
from paratrain.tools.runs.run import AXES, Run, Series

__all__ = ["AXES", "Run", "Series", "open_run", "read_log"]
