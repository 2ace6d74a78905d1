from __future__ import annotations

import logging

import pytest

from paratrain.data.bad_records import BadRecords
from paratrain.errors import DataError


def error(record):
    return DataError(f"record {record} is bad")


def test_where_bad_records_stop_the_run_the_error_is_raised():
    bad = BadRecords(5)
    with pytest.raises(DataError, match="record 3 is bad"):
        bad.add(3, error(3))
    assert len(bad) == 0


def test_the_next_good_record_takes_the_place_of_a_bad_one_round_the_end():
    bad = BadRecords(5, "skip")
    assert next(bad.candidates(3)) == 3
    bad.add(3, error(3))
    assert next(bad.candidates(3)) == 4
    assert list(zip(range(3), bad.candidates(2), strict=False)) == [(0, 2), (1, 4), (2, 0)]
    bad.add(4, error(4))
    assert [next(bad.candidates(record)) for record in range(5)] == [0, 1, 2, 0, 0]
    assert len(bad) == 2


def test_a_source_without_a_good_record_is_an_error():
    bad = BadRecords(3, "skip")
    with pytest.raises(DataError, match="none of the 3 records can be used; the last: record 1 is bad"):
        for record in bad.candidates(2):
            bad.add(record, error(record))


def test_so_many_in_a_row_are_no_accident():
    bad, tried = BadRecords(1_000_000, "skip"), []
    with pytest.raises(DataError, match="none of 1000 successive records .* the last: record 1009 is bad"):
        for record in bad.candidates(10):
            tried.append(record)
            bad.add(record, error(record))
    assert tried == list(range(10, 1010))


def test_the_first_few_are_logged_by_name_and_then_their_number(caplog):
    bad = BadRecords(1000, "skip")
    with caplog.at_level(logging.WARNING, "paratrain"):
        for record in range(0, 240, 2):
            bad.add(record, error(record))
            bad.add(record, error(record))
    messages = [entry.getMessage() for entry in caplog.records]
    assert messages[:5] == [f"record {2 * i} is bad; the next good record takes its place" for i in range(5)]
    assert [message.split(";")[0] for message in messages[5:]] == [
        f"{count} of 1000 records are bad so far" for count in (10, 20, 50, 100)
    ]
