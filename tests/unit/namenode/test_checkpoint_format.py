"""Files of metadata: what is written is read, and whatever was cut off or changed is refused."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfslib.namenode.checkpoint.format import (
    Commit,
    Damaged,
    Encoder,
    FileName,
    Header,
    TooLate,
    check,
    name_of,
    parse_name,
    read_commits,
    read_header,
    read_records,
)
from dfslib.wire.features import NEWEST_LEVEL, OLDEST_LEVEL

KEYS, VALUES = st.binary(min_size=1, max_size=20), st.binary(max_size=40)
RECORDS = st.lists(st.lists(st.tuples(KEYS, VALUES), max_size=5), max_size=5)
COMMITS = st.lists(
    st.lists(
        st.tuples(st.integers(0, 1 << 60), st.lists(st.tuples(KEYS, st.none() | VALUES), max_size=4)), max_size=4
    ),
    max_size=4,
)
CHECKPOINT = Header("checkpoint", "c", 3, 0, 17, 123)
JOURNAL = Header("journal", "c", 3, 5, 17, 123)


def file_of(header: Header, frames: list[list[tuple[bytes, bytes]]] | list[list[Commit]]) -> bytes:
    encoder = Encoder()
    parts = [encoder.header(header), *(encoder.records(frame) for frame in frames), encoder.end()]
    return b"".join(parts)


@given(RECORDS)
def test_a_checkpoint_is_read_as_it_was_written(frames: list[list[tuple[bytes, bytes]]]) -> None:
    file = io.BytesIO(file_of(CHECKPOINT, frames))
    assert read_header(file) == CHECKPOINT
    assert list(read_records(file)) == frames


@given(COMMITS)
def test_a_journal_is_read_as_it_was_written(frames: list[list[Commit]]) -> None:
    file = io.BytesIO(file_of(JOURNAL, frames))
    assert read_header(file) == JOURNAL
    assert list(read_commits(file)) == frames


WHOLE = file_of(CHECKPOINT, [[(b"key", b"value" * 20), (b"l", b"")], [(b"m", b"1")]])


@pytest.mark.parametrize("length", range(len(WHOLE)))
def test_a_file_that_is_cut_off_is_refused(length: int) -> None:
    with pytest.raises(Damaged):
        check(io.BytesIO(WHOLE[:length]), name_of(CHECKPOINT), "c")


@pytest.mark.parametrize("at", range(len(WHOLE)))
def test_a_file_with_a_changed_byte_is_refused(at: int) -> None:
    changed = bytearray(WHOLE)
    changed[at] ^= 0x41
    with pytest.raises(Damaged):
        check(io.BytesIO(bytes(changed)), name_of(CHECKPOINT), "c")


def test_a_file_under_another_name_or_of_another_cluster_is_refused() -> None:
    check(io.BytesIO(WHOLE), name_of(CHECKPOINT), "c")
    for name, cluster in ((name_of(CHECKPOINT)._replace(last=18), "c"), (name_of(CHECKPOINT), "other")):
        with pytest.raises(Damaged):
            check(io.BytesIO(WHOLE), name, cluster)
    with pytest.raises(Damaged):
        check(io.BytesIO(WHOLE + b"x"), name_of(CHECKPOINT), "c")


def test_a_file_of_a_later_level_is_told_from_one_that_is_damaged() -> None:
    for level in range(OLDEST_LEVEL, NEWEST_LEVEL + 1):
        known = file_of(Header("checkpoint", "c", 3, 0, 17, 123, level), [])
        assert check(io.BytesIO(known), name_of(CHECKPOINT), "c").level == level
    later = file_of(Header("checkpoint", "c", 3, 0, 17, 123, NEWEST_LEVEL + 1), [])
    with pytest.raises(TooLate) as caught:
        check(io.BytesIO(later), name_of(CHECKPOINT), "c")
    assert caught.value.level == NEWEST_LEVEL + 1
    with pytest.raises(Damaged) as wrong:
        check(io.BytesIO(file_of(Header("checkpoint", "c", 3, 0, 17, 123, 0), [])), name_of(CHECKPOINT), "c")
    assert not isinstance(wrong.value, TooLate)


@given(st.integers(0, 999_999), st.integers(0, 10**19), st.integers(0, 10**19))
def test_names_are_read_as_they_are_written_and_sort(epoch: int, a: int, b: int) -> None:
    first, last = sorted((a, b))
    for name in (FileName("checkpoint", epoch, 0, last), FileName("journal", epoch, first, last)):
        assert parse_name(str(name)) == name
    assert (str(FileName("checkpoint", 0, 0, a)) < str(FileName("checkpoint", 0, 0, b))) == (a < b)


@pytest.mark.parametrize(
    "text", ["", "checkpoint", "journal-000001-" + "1" * 20, "checkpoint-000001-" + "1" * 20 + "-" + "2" * 20, "x"]
)
def test_other_names_are_none_of_ours(text: str) -> None:
    assert parse_name(text) is None
