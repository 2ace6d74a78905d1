from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from paratrain.data.hdf5 import open_hdf5
from paratrain.data.hdf5_records import Hdf5Records
from paratrain.errors import DataError

pytest.importorskip("h5py", reason="h5py is not installed (the extra 'hdf5')")

COUNTS = (5, 0, 1, 6)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Rows numbered through over four files, one of them empty."""
    start = 0
    for number, count in enumerate(COUNTS):
        with open_hdf5(tmp_path / f"{number}.h5", "w") as file:
            file["x"] = np.arange(start, start + count)
            file["y"] = np.arange(start, start + count).reshape(count, 1, 1) * np.ones((1, 2, 3))
        start += count
    (tmp_path / "list.txt").write_text("\n".join(f"{tmp_path}/{number}.h5" for number in range(len(COUNTS))))
    return tmp_path / "list.txt"


def read(records: Hdf5Records, numbers: list[int]) -> list[int]:
    x, y = np.empty(len(numbers), np.float32), np.empty((len(numbers), 2, 3), np.float32)
    records.read(numbers, [x, y])
    np.testing.assert_array_equal(y, x[:, None, None] * np.ones((1, 2, 3)))
    return x.astype(int).tolist()


def test_rows_are_numbered_through(source: Path) -> None:
    records = Hdf5Records(str(source), ["x", "y"], np.float32)
    assert (records.count, records.file_counts, records.row_shapes) == (12, list(COUNTS), [(), (2, 3)])
    for numbers in ([0], [11, 5, 4, 0, 6, 11, 5], list(range(12))):
        assert read(records, numbers) == numbers
    names = [Path(records.key(number)).name for number in (0, 4, 5, 6, 11)]
    assert names == ["0.h5: row 0", "0.h5: row 4", "2.h5: row 0", "3.h5: row 0", "3.h5: row 5"]


def test_any_number_of_threads_may_read(source: Path) -> None:
    records = Hdf5Records(str(source), ["x", "y"], np.float32)
    random = np.random.default_rng(1)
    asked = [random.integers(0, 12, 4).tolist() for _ in range(200)]
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(lambda numbers: read(records, numbers), asked)) == asked


def test_a_link_that_leads_nowhere_is_named(source: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with open_hdf5(source.parent / "2.h5", "a") as file:
        del file["y"]
        file["y"] = h5py.SoftLink("/nowhere")
    with pytest.raises(DataError, match=r"2.h5: cannot be read \(.*not found\)"):
        Hdf5Records(str(source), ["x", "y"], np.float32)


def test_a_file_that_is_gone_or_has_changed_is_named(source: Path) -> None:
    records = Hdf5Records(str(source), ["x", "y"], np.float32)
    with open_hdf5(source.parent / "2.h5", "w") as file:
        file["x"], file["y"] = np.zeros(2), np.zeros((2, 2, 3))
    with pytest.raises(DataError, match=r"2.h5: has changed since it was opened first"):
        read(records, [0, 5])
    (source.parent / "3.h5").unlink()
    with pytest.raises(DataError, match=r"3.h5: no such file"):
        read(records, [8])
    assert read(records, [4]) == [4], "the others can still be read"


def test_a_file_that_never_answers_is_named_and_leaves_no_thread_that_holds_the_process(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = Hdf5Records(str(source), ["x"], np.float32, time_limit_s=0.2)
    answers = threading.Event()
    load = records._load

    def hang(file: int, second: int) -> list[np.ndarray]:
        answers.wait(30)
        return load(file, second)

    monkeypatch.setattr(records._files, "_make", hang)
    with pytest.raises(DataError, match=r"reading its rows has not ended within 0\.2 s"):
        read(records, [0])
    records.read_ahead(0)
    assert all(thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread())
    answers.set()
    records.close()
