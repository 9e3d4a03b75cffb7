"""Data files in: what a tape yields for Parquet and CSV."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tapekit import ENDINGS, TICKS, csv, lines, records, settings
from tickcast.columns import NO_TIME, PACKED, RawBatch
from tickcast.engine.codec.decode import Decoder
from tickcast.errors import BadData, Reason
from tickcast.io.tape.tape import Tape, write_ticks
from tickcast.symbols import SymbolTable


class TestTicks:
    @pytest.mark.parametrize("ending", ENDINGS[:3])
    def test_a_table_yields_one_packed_record_for_each_row(self, tmp_path: Path, ending: str) -> None:
        write_ticks(tmp_path / f"ticks{ending}", TICKS)
        found = records(tmp_path / f"ticks{ending}")
        assert found["symbol"].tolist() == [b"A", b"B", b"A", b"B", b"A"]
        assert found["ts"].tolist() == TICKS["ts"].to_list()
        assert found["price"].tolist() == TICKS["price"].to_list()
        assert found["size"].tolist() == TICKS["size"].to_list()
        assert np.isnan(found["bid"]).all()
        assert (found["sequence"] == -1).all()

    @pytest.mark.parametrize("ending", ENDINGS)
    def test_equal_ticks_are_written_as_equal_files(self, tmp_path: Path, ending: str) -> None:
        for name in ("one", "two"):
            write_ticks(tmp_path / name / f"t{ending}", TICKS)
        assert (tmp_path / "one" / f"t{ending}").read_bytes() == (tmp_path / "two" / f"t{ending}").read_bytes()

    @pytest.mark.parametrize("chunk", [1, 2, 3, 5, 1000])
    @pytest.mark.parametrize("ending", [".parquet", ".jsonl"])
    def test_chunks_hold_at_most_that_many_rows_and_offsets_run_on(
        self, tmp_path: Path, ending: str, chunk: int
    ) -> None:
        write_ticks(tmp_path / f"t{ending}", TICKS)
        batches = list(Tape(tmp_path / f"t{ending}", settings(), chunk=chunk))
        assert max(len(batch) for batch in batches) <= chunk
        assert np.concatenate([batch.offsets for batch in batches]).tolist() == [0, 1, 2, 3, 4]
        assert [batch.message(i) for batch in batches for i in range(len(batch))] == messages(tmp_path / f"t{ending}")

    def test_rows_are_sorted_by_time_and_equal_times_keep_their_order(self, tmp_path: Path) -> None:
        path = csv(tmp_path, "symbol,ts,price\nB,30,1\nA,10,2\nB,10,3\nA,30,4\nA,20,5\n")
        assert records(path)["price"].tolist() == [2, 3, 5, 1, 4]

    def test_files_of_a_folder_are_interleaved_in_time(self, tmp_path: Path) -> None:
        csv(tmp_path, "symbol,ts,price\nA,10,1\nA,30,2\n", "a.csv")
        write_ticks(tmp_path / "deep" / "b.parquet", pl.DataFrame({"symbol": ["B"], "ts": [20], "price": [9.0]}))
        csv(tmp_path, "not data", "README.md")
        assert records(tmp_path)["symbol"].tolist() == [b"A", b"B", b"A"]

    def test_a_tape_can_be_read_twice(self, tmp_path: Path) -> None:
        write_ticks(tmp_path / "t.jsonl", TICKS)
        tape = Tape(tmp_path / "t.jsonl", settings())
        assert [len(batch) for batch in tape] == [len(batch) for batch in tape] == [5]

    def test_received_ns_becomes_the_stamp_and_the_order(self, tmp_path: Path) -> None:
        path = csv(tmp_path, "symbol,ts,price,received_ns\nA,30,1,100\nA,20,2,300\nA,10,3,200\n")
        batch = next(iter(Tape(path, settings())))
        assert batch.data.view(PACKED)["ts"].tolist() == [30, 10, 20]
        assert batch.stamps_ns.tolist() == [100, 200, 300]

    def test_without_received_ns_stamps_are_unknown(self, tmp_path: Path) -> None:
        write_ticks(tmp_path / "t.csv", TICKS)
        assert (next(iter(Tape(tmp_path / "t.csv", settings()))).stamps_ns == -1).all()

    def test_a_quote_has_the_mid_as_its_price(self, tmp_path: Path) -> None:
        found = records(csv(tmp_path, "symbol,ts,bid,ask\nA,1,10,12\n"))[0]
        assert (found["price"], found["bid"], found["ask"], found["size"]) == (11.0, 10.0, 12.0, 0.0)

    def test_a_mapped_sequence_is_carried(self, tmp_path: Path) -> None:
        path = csv(tmp_path, "symbol,ts,price,n\nA,1,10,7\nA,2,10,\n")
        assert records(path, settings(codec__fields__sequence="n"))["sequence"].tolist() == [7, -1]

    def test_cells_without_a_number_become_nan_and_no_row_is_lost(self, tmp_path: Path) -> None:
        path = csv(tmp_path, "symbol,ts,price,size\nA,1,,1\nA,2,.,1\nA,3,x,1\nA,4,5,\nA,5,inf,1\nA,,7,1\n,6,8,1\n")
        found = records(path)
        assert len(found) == 7
        assert np.isnan(found["price"]).sum() == 3
        assert np.isnan(found["size"]).sum() == 1
        assert np.isinf(found["price"]).sum() == 1
        assert (found["ts"] == NO_TIME).sum() == 1
        assert (found["symbol"] == b"").sum() == 1

    def test_symbols_stay_text_even_where_they_look_like_numbers(self, tmp_path: Path) -> None:
        path = csv(tmp_path, "symbol,ts,price\n007,1,1\nNaN,2,1\n1e5,3,1\n")
        assert records(path)["symbol"].tolist() == [b"007", b"NaN", b"1e5"]

    def test_a_file_without_a_symbol_column_is_named_after_itself(self, tmp_path: Path) -> None:
        assert records(csv(tmp_path, "ts,price\n1,2\n", "usdjpy.v2.csv"))["symbol"].tolist() == [b"usdjpy"]

    def test_the_batches_are_writable_as_kernels_are_compiled_for(self, tmp_path: Path) -> None:
        write_ticks(tmp_path / "t.csv", TICKS)
        write_ticks(tmp_path / "t.jsonl", TICKS)
        assert all(
            batch.data.flags.writeable for name in ("t.csv", "t.jsonl") for batch in Tape(tmp_path / name, settings())
        )


def messages(path: Path) -> list[bytes]:
    batch: RawBatch = next(iter(Tape(path, settings())))
    return [batch.message(i) for i in range(len(batch))]


class TestDecoding:
    @pytest.mark.parametrize("ending", ENDINGS)
    def test_every_kind_of_file_decodes_to_the_same_ticks(self, tmp_path: Path, ending: str) -> None:
        write_ticks(tmp_path / f"t{ending}", TICKS)
        tape, table = Tape(tmp_path / f"t{ending}", settings()), SymbolTable(10)
        ticks, rejects = Decoder(tape.settings.codec, table).decode(next(iter(tape)))
        assert len(rejects) == 0
        assert [table.name(code) for code in ticks.symbol] == TICKS["symbol"].to_list()
        for name in ("ts", "price", "size"):
            assert getattr(ticks, name).tolist() == TICKS[name].to_list()

    def test_rows_without_time_or_symbol_are_rejected_with_their_reason(self, tmp_path: Path) -> None:
        tape = Tape(csv(tmp_path, "symbol,ts,price\nA,,7\n,6,8\nA,7,9\n"), settings())
        ticks, rejects = Decoder(tape.settings.codec, SymbolTable(10)).decode(next(iter(tape)))
        assert ticks.price.tolist() == [9]
        assert rejects.reason.tolist() == [Reason.BAD_TIME, Reason.BAD_SYMBOL]


class TestTimes:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("2024-01-02T03:04:05Z", "2024-01-02T03:04:05"),
            ("2024-01-02T03:04:05.123456789Z", "2024-01-02T03:04:05.123456789"),
            ("2024-01-02T05:04:05+02:00", "2024-01-02T03:04:05"),
            ("2024-01-02 03:04:05.5+00:00", "2024-01-02T03:04:05.5"),
            ("2024-01-02 03:04:05", "2024-01-02T03:04:05"),
            ("2024-01-02T03:04:05.25", "2024-01-02T03:04:05.25"),
            ("2024-01-02 03:04", "2024-01-02T03:04"),
            ("2024-01-02", "2024-01-02"),
            ("2024/1/2 3:04", "2024-01-02T03:04"),
            ("20240102 03:04:05.5", "2024-01-02T03:04:05.5"),
            ("1/2/2024", "2024-01-02"),
        ],
    )
    def test_text_is_read_as_utc_where_it_names_no_zone(self, tmp_path: Path, text: str, expected: str) -> None:
        found = records(csv(tmp_path, f"symbol,ts,price\nA,{text},1\n"))
        assert found["ts"][0] == np.datetime64(expected, "ns").astype(np.int64)

    @pytest.mark.parametrize(("unit", "value"), [("s", "1700000000"), ("ms", "1700000000000"), ("s", "1700000000.0")])
    def test_numbers_are_in_the_time_unit(self, tmp_path: Path, unit: str, value: str) -> None:
        found = records(csv(tmp_path, f"symbol,ts,price\nA,{value},1\n"), settings(codec__time_unit=unit))
        assert found["ts"][0] == 1_700_000_000 * 10**9

    def test_fractions_of_a_second_keep_their_digits(self, tmp_path: Path) -> None:
        path = csv(tmp_path, "symbol,ts,price\nA,1700000000.125,1\n")
        assert records(path, settings(codec__time_unit="s"))["ts"][0] == 1_700_000_000_125_000_000

    def test_a_wrong_unit_never_wraps_around_into_a_plausible_time(self, tmp_path: Path) -> None:
        path = csv(tmp_path, "symbol,ts,price\nA,1700000000000000000,1\nA,5,1\n")
        assert records(path, settings(codec__time_unit="s"))["ts"].tolist() == [NO_TIME, 5 * 10**9]

    def test_mixed_forms_in_one_column_are_all_read(self, tmp_path: Path) -> None:
        path = csv(tmp_path, "symbol,ts,price\nA,2024-01-02,1\nA,2024-01-03 00:00:00,1\nA,junk,1\n")
        day = 86_400 * 10**9
        found = records(path)["ts"]
        assert found[0] == NO_TIME
        assert found[2] - found[1] == day

    def test_day_first_dates_are_refused_rather_than_misread(self, tmp_path: Path) -> None:
        path = csv(tmp_path, "symbol,ts,price\nA,1/2/2024,1\nA,13/2/2024,1\n")
        with pytest.raises(BadData, match=r"1/2/2024.*no time"):
            Tape(path, settings())

    def test_parquet_dates_and_datetimes_are_read_in_their_own_unit(self, tmp_path: Path) -> None:
        moment = pl.Series(["2024-01-02 03:04:05"]).str.to_datetime(time_unit="ms", time_zone="Europe/Paris")
        for name, column in (("zoned", moment), ("date", pl.Series(["2024-01-02"]).str.to_date())):
            pl.DataFrame({"symbol": ["A"], "ts": column, "price": [1.0]}).write_parquet(tmp_path / f"{name}.parquet")
        expected = np.datetime64("2024-01-02T02:04:05", "ns").astype(np.int64)
        assert records(tmp_path / "zoned.parquet")["ts"][0] == expected
        assert records(tmp_path / "date.parquet")["ts"][0] == np.datetime64("2024-01-02", "ns").astype(np.int64)


class TestCuts:
    def test_times_are_cut_half_open(self, tmp_path: Path) -> None:
        write_ticks(tmp_path / "t.csv", TICKS)
        write_ticks(tmp_path / "t.jsonl", TICKS)
        assert records(tmp_path / "t.csv", from_ns=20, to_ns=40)["ts"].tolist() == [20, 20, 30]
        assert len(lines(tmp_path / "t.jsonl", from_ns=20, to_ns=40)) == 3

    def test_symbols_are_picked_by_name_or_pattern(self, tmp_path: Path) -> None:
        text = "symbol,ts,price\nBTCUSD,1,1\nBTCEUR,2,1\nETH,3,1\n"
        found = records(csv(tmp_path, text), symbols=["BTC*"])
        assert found["symbol"].tolist() == [b"BTCUSD", b"BTCEUR"]
        write_ticks(tmp_path / "t.jsonl", TICKS)
        assert len(lines(tmp_path / "t.jsonl", symbols=["A"])) == 3

    def test_unreadable_lines_survive_a_cut_for_the_codec_to_count(self, tmp_path: Path) -> None:
        path = tmp_path / "t.jsonl"
        path.write_bytes(b'{"symbol":"A","ts":5}\nnot json\n\xff\xfe\n{"symbol":7,"ts":null}\n{"symbol":"B","ts":6}\n')
        assert lines(path, symbols=["A"]) == [
            b'{"symbol":"A","ts":5}',
            b"not json",
            b"\xff\xfe",
            b'{"symbol":7,"ts":null}',
        ]

    def test_a_cut_that_leaves_nothing_is_refused(self, tmp_path: Path) -> None:
        write_ticks(tmp_path / "t.csv", TICKS)
        with pytest.raises(BadData, match="no row with that time and symbol"):
            Tape(tmp_path / "t.csv", settings(), symbols=["C"])


class TestBars:
    BARS = "symbol,ts,open,high,low,close,volume\nA,0,10,12,9,11,5\nB,0,20,21,18,19,6\nA,60,11,13,11,12,7\n"

    def test_each_bar_becomes_four_ticks_that_rebuild_it(self, tmp_path: Path) -> None:
        found = records(csv(tmp_path, self.BARS), settings(codec__time_unit="s"))
        rising = found[found["symbol"] == b"A"][:4]
        falling = found[found["symbol"] == b"B"]
        assert rising["price"].tolist() == [10, 9, 12, 11]
        assert falling["price"].tolist() == [20, 21, 18, 19]
        assert rising["size"].tolist() == [0, 0, 0, 5]
        assert rising["ts"].tolist() == [0, 20 * 10**9, 40 * 10**9, 60 * 10**9 - 1]

    def test_ticks_of_one_interval_are_interleaved_in_time(self, tmp_path: Path) -> None:
        tape = Tape(csv(tmp_path, self.BARS), settings(codec__time_unit="s"))
        found = next(iter(tape)).data.view(PACKED)
        assert found["symbol"].tolist() == [b"A", b"B"] * 4 + [b"A"] * 4
        assert (np.diff(found["ts"]) >= 0).all()
        assert (tape.kind, tape.rows, tape.interval_ns) == ("bars", 12, 60 * 10**9)

    def test_the_interval_is_the_most_common_step_whatever_the_gaps(self, tmp_path: Path) -> None:
        rows = "".join(f"A,{minute * 60},1,1,1,1,1\n" for minute in (0, 1, 2, 500, 501, 2000))
        tape = Tape(csv(tmp_path, "symbol,ts,open,high,low,close,volume\n" + rows), settings(codec__time_unit="s"))
        assert tape.interval_ns == 60 * 10**9

    def test_a_single_bar_takes_its_length_from_the_settings(self, tmp_path: Path) -> None:
        path = csv(tmp_path, "symbol,ts,open,high,low,close\nA,0,1,1,1,1\n")
        assert Tape(path, settings(bars__every_ms="5000")).interval_ns == 5 * 10**9

    def test_missing_prices_stay_nan_and_a_missing_volume_is_zero(self, tmp_path: Path) -> None:
        path = csv(tmp_path, "symbol,ts,open,high,low,close,volume\nA,0,,12,9,11,\nA,60,1,2,0.5,1,3\n")
        found = records(path, settings(codec__time_unit="s"))
        assert np.isnan(found["price"][0])
        assert found["size"].tolist() == [0, 0, 0, 0, 0, 0, 0, 3]

    def test_a_file_with_a_price_column_is_ticks_even_beside_bar_columns(self, tmp_path: Path) -> None:
        path = csv(tmp_path, "symbol,ts,price,open,high,low,close\nA,1,5,1,1,1,1\n")
        assert Tape(path, settings()).kind == "ticks"

    def test_bars_and_ticks_do_not_mix(self, tmp_path: Path) -> None:
        csv(tmp_path, self.BARS, "bars.csv")
        csv(tmp_path, "symbol,ts,price\nA,1,2\n", "ticks.csv")
        with pytest.raises(BadData, match="both tick files and bar files"):
            Tape(tmp_path, settings())


class TestWide:
    def test_every_numeric_column_is_a_series_of_its_name(self, tmp_path: Path) -> None:
        path = csv(tmp_path, "when,a,note,b\n1,10,x,20\n2,11,y,\n")
        found = records(path, settings(codec__layout="wide", codec__fields__ts="when"))
        assert found["symbol"].tolist() == [b"a", b"b", b"a", b"b"]
        assert found["ts"].tolist() == [1, 1, 2, 2]
        assert found["price"][:3].tolist() == [10, 20, 11]
        assert np.isnan(found["price"][3])

    def test_a_wide_file_without_numbers_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(BadData, match="no numeric column"):
            Tape(csv(tmp_path, "ts,note\n1,x\n"), settings(codec__layout="wide"))
