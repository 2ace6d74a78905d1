from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paratrain.data import array_to_datum, datum_to_array
from paratrain.data.datum_layout import DatumLayout
from paratrain.proto import Datum

RNG = np.random.default_rng(2)
SHAPE = (3, 4, 5)
PIXELS = [RNG.integers(0, 256, SHAPE, np.uint8) for _ in range(6)]


def layout_of(value):
    return DatumLayout.of(value, Datum.FromString(value))


def written(pixels, label=0):
    return array_to_datum(pixels, label).SerializeToString()


@pytest.mark.parametrize("labels", [[0, 1, 2, 3, 4, 5], [0, 127, 128, 300, 999, 70000], [-1, 0, 5, -1, 2**31 - 1, 3]])
def test_records_are_what_the_parser_makes_of_them(labels):
    values = [written(pixels, label) for pixels, label in zip(PIXELS, labels, strict=True)]
    layout = layout_of(values[0])
    pixels, found = layout.read(values)
    assert found == labels
    assert pixels.dtype == np.uint8
    assert np.array_equal(pixels, PIXELS)
    pixels, found = layout.read(values[3:4])
    assert (found, pixels.shape) == ([labels[3]], (1, *SHAPE))


def test_a_label_may_be_missing_and_encoded_may_be_false():
    no_label = Datum(channels=3, height=4, width=5, data=PIXELS[1].tobytes()).SerializeToString()
    not_encoded = Datum(
        channels=3, height=4, width=5, data=PIXELS[2].tobytes(), label=9, encoded=False
    ).SerializeToString()
    pixels, labels = layout_of(written(PIXELS[0])).read([no_label, not_encoded, written(PIXELS[3], 4)])
    assert labels == [0, 9, 4]
    assert np.array_equal(pixels, PIXELS[1:4])


def test_what_has_no_layout():
    assert layout_of(Datum(data=b"jpeg", encoded=True).SerializeToString()) is None
    assert layout_of(array_to_datum(np.zeros(SHAPE, np.float32)).SerializeToString()) is None
    assert layout_of(written(np.zeros((3, 100, 100), np.uint8))) is None, "large images gain nothing"
    assert layout_of(Datum(channels=3, height=4, width=5, data=b"short").SerializeToString()) is None
    data_first = b"\x22\x01\x07" + Datum(channels=1, height=1, width=1).SerializeToString()
    assert datum_to_array(Datum.FromString(data_first)).tolist() == [[[7]]], "a Datum all the same"
    assert layout_of(data_first) is None


@pytest.mark.parametrize(
    "other",
    [
        written(np.zeros((3, 5, 4), np.uint8)),
        written(np.zeros((1, 4, 5), np.uint8)),
        written(PIXELS[0])[:-20],
        b"",
        b"nonsense" * 30,
        array_to_datum(np.zeros(SHAPE, np.float32), 3).SerializeToString(),
        written(PIXELS[0]) + Datum(channels=1).SerializeToString(),
        written(PIXELS[0]) + Datum(data=b"other").SerializeToString(),
        written(PIXELS[0]) + Datum(encoded=True).SerializeToString(),
        written(PIXELS[0]) + b"\xff",
    ],
)
def test_one_record_of_another_form_and_none_is_read(other):
    layout = layout_of(written(PIXELS[0]))
    assert layout.read([written(PIXELS[1]), other, written(PIXELS[2])]) is None


BASE = written(np.arange(6, dtype=np.uint8).reshape(1, 2, 3), 300)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(BASE)), st.binary(max_size=3), st.integers(0, 3)), max_size=3))
def test_whatever_is_read_is_what_the_parser_reads(edits):
    value = bytearray(BASE)
    for place, inserted, removed_count in edits:
        value[place : place + removed_count] = inserted
    found = layout_of(BASE).read([bytes(value), BASE])
    if found is not None:
        datum = Datum.FromString(bytes(value))
        assert np.array_equal(found[0][0], datum_to_array(datum))
        assert found[1] == [datum.label, 300]
