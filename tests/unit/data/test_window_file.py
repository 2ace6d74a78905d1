from __future__ import annotations

import pytest

from paratrain.data.window_file import read_window_file
from paratrain.errors import DataError

GOOD = """\
# 0
one image.jpg
3
60
80
4
1 0.8 10 11 50 51
2 0.5 0 0 9 9
3 0.1 1 2 3 4
4 0.2999 5 6 7 8

# 1
two.png
3
30
40
0
# 7
/three.png
1
30
40
1
9 0 2 2 2 2
"""


def window_file(path, text):
    (path / "windows.txt").write_text(text)
    return str(path / "windows.txt")


def rows(windows):
    return list(
        zip(windows.image.tolist(), windows.label.tolist(), windows.box.tolist(), windows.line.tolist(), strict=True)
    )


def test_windows_are_sorted_by_their_overlap(tmp_path):
    read = read_window_file(window_file(tmp_path, GOOD), 0.5, 0.3)
    assert read.paths == ["one image.jpg", "two.png", "/three.png"]
    assert rows(read.foreground) == [(0, 1, [10, 11, 50, 51], 7), (0, 2, [0, 0, 9, 9], 8)]
    assert rows(read.background) == [(0, 0, [1, 2, 3, 4], 9), (0, 0, [5, 6, 7, 8], 10), (2, 0, [2, 2, 2, 2], 24)]


def test_windows_between_the_thresholds_are_left_out(tmp_path):
    """Thresholds are float32, as in the prototxt: an overlap written as 0.1 reaches a threshold written as 0.1."""
    path = window_file(tmp_path, GOOD)
    read = read_window_file(path, 0.8, 0.1)
    assert [len(read.foreground), len(read.background)] == [1, 1]
    assert len(read_window_file(path, 0.1, 0.1).foreground) == 4
    assert len(read_window_file(path, 0.9, 0.0).background) == 0


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("# 0\n", "", r"windows.txt:1: found 'one image.jpg'; expected for each image '# index'"),
        ("# 1\n", "# one\n", r"windows.txt:12: found '# one'; expected for each image"),
        ("\n60\n", "\nsixty\n", r"windows.txt:4: found 'sixty', not a number"),
        ("\n4\n", "\n5\n", r"windows.txt:12: expected 'class overlap x1 y1 x2 y2', found '# 1'"),
        ("\n4\n", "\n3\n", r"windows.txt:10: found '4 0.2999 5 6 7 8'; expected for each image"),
        ("\n4\n", "\nfour\n", r"windows.txt:6: found 'four', not the number of windows"),
        ("1 2 3 4\n", "1 2 3\n", r"windows.txt:9: expected 'class overlap x1 y1 x2 y2', found '3 0.1 1 2 3'"),
        ("1 2 3 4\n", "1 2 3 x\n", r"windows.txt:9: expected 'class overlap x1 y1 x2 y2', found '3 0.1 1 2 3 x'"),
        ("10 11 50 51", "10 11 50.5 51", r"windows.txt:7: class and corners must be whole numbers: .*10 11 50.5 51"),
        ("10 11 50 51", "10 11 nan 51", r"windows.txt:7: class and corners must be whole numbers"),
        (
            "5 6 7 8",
            "5 6 7 5",
            r"windows.txt:10: the window ends before it starts: class 4, overlap 0.2999, box 5 6 7 5",
        ),
        ("2 0.5 ", "0 0.5 ", r"windows.txt:8: a foreground window must have a class above 0: class 0, overlap 0.5"),
        ("9 0 2 2 2 2\n", "", r"windows.txt:23: the file ends after 0 of 1 windows"),
        ("30\n40\n1\n9 0 2 2 2 2\n", "", r"windows.txt:18: the file ends within this image"),
        (GOOD, "\n", "windows.txt: the window file is empty"),
    ],
)
def test_what_is_not_of_the_form_is_named(tmp_path, old, new, message):
    assert old in GOOD
    with pytest.raises(DataError, match=message):
        read_window_file(window_file(tmp_path, GOOD.replace(old, new, 1)), 0.5, 0.5)


def test_a_missing_file(tmp_path):
    with pytest.raises(DataError, match=r"none.txt: the window file cannot be read \(No such file"):
        read_window_file(str(tmp_path / "none.txt"), 0.5, 0.5)
