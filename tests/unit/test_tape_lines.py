"""JSON-lines files in: whole lines, stamps, merged files."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapekit import lines, settings
from tickcast.errors import BadData
from tickcast.io.tape.lines import trim_lines
from tickcast.io.tape.tape import Tape


class TestLines:
    def test_lines_pass_as_they_are(self, tmp_path: Path) -> None:
        path = tmp_path / "t.jsonl"
        path.write_bytes(b'{"a":1}\r\n\n  {"b":2} \nlast without newline')
        assert lines(path) == [b'{"a":1}', b"", b'  {"b":2} ', b"last without newline"]

    def test_a_leading_number_is_taken_off_as_the_stamp(self, tmp_path: Path) -> None:
        path = tmp_path / "t.jsonl"
        path.write_bytes(b'1723161253937085768 {"a":1}\n{"a":2}\n12{"a":3}\n99999999999999999999 {"a":4}\n')
        batch = next(iter(Tape(path, settings())))
        assert batch.stamps_ns.tolist() == [1723161253937085768, -1, -1, -1]
        assert [batch.message(0), batch.message(2)] == [b'{"a":1}', b'12{"a":3}']

    def test_stamped_files_are_merged_by_their_stamps(self, tmp_path: Path) -> None:
        (tmp_path / "a.jsonl").write_bytes(b"1 a1\n4 a4\n")
        (tmp_path / "b.jsonl").write_bytes(b"2 b2\n3 b3")
        assert lines(tmp_path) == [b"a1", b"b2", b"b3", b"a4"]

    def test_other_files_are_merged_by_event_time_and_late_lines_stay_late(self, tmp_path: Path) -> None:
        (tmp_path / "a.jsonl").write_bytes(b'{"ts":10}\n{"ts":30}\n{"ts":20}\nbroken\n')
        (tmp_path / "b.jsonl").write_bytes(b'{"ts":25}\n{"ts":"40"}\n')
        assert lines(tmp_path) == [b'{"ts":10}', b'{"ts":25}', b'{"ts":30}', b'{"ts":20}', b"broken", b'{"ts":"40"}']

    def test_a_cut_of_a_foreign_feed_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "a.jsonl").write_bytes(b"{}\n")
        with pytest.raises(BadData, match="binance-trade"):
            Tape(tmp_path / "a.jsonl", settings(codec__preset="binance-trade"), from_ns=1)

    @given(st.lists(st.binary(max_size=40).filter(lambda line: b"\n" not in line and not line.endswith(b"\r"))))
    def test_any_lines_come_back_unchanged(
        self, tmp_path_factory: pytest.TempPathFactory, given_lines: list[bytes]
    ) -> None:
        path = tmp_path_factory.mktemp("lines") / "t.jsonl"
        path.write_bytes(b"".join(b"{" + line + b"\n" for line in [b"first", *given_lines]))
        assert lines(path) == [b"{" + line for line in [b"first", *given_lines]]


def test_trimming_takes_stamps_and_carriage_returns_off_and_leaves_the_rest() -> None:
    data = np.frombuffer(b"12 ab\rcd", np.uint8).copy()
    starts, ends, stamps = np.array([0, 6]), np.array([6, 8]), np.full(2, -1)
    trim_lines(data, starts, ends, stamps)
    assert (starts.tolist(), ends.tolist(), stamps.tolist()) == ([3, 6], [5, 8], [12, -1])
