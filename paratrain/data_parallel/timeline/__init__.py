"""When every rank did what: noted while training goes on, and written as a file that browsers show."""

from paratrain.data_parallel.timeline.timeline import Timeline, check_timeline_path

__all__ = ["Timeline", "check_timeline_path"]
