"""Files that cannot be used, and the real ones that can."""

import gzip
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tapekit import TICKS, csv, records, settings
from tickcast.columns import PACKED
from tickcast.errors import BadData
from tickcast.io.tape.tape import Tape, write_ticks


class TestRefusals:
    @pytest.mark.parametrize("name", ["t.parquet", "t.csv", "t.jsonl", "t.csv.gz"])
    def test_an_empty_file_is_refused(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).touch()
        with pytest.raises(BadData, match="is empty"):
            Tape(tmp_path / name, settings())

    def test_a_file_of_headings_only_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(BadData, match="no rows"):
            Tape(csv(tmp_path, "symbol,ts,price\n"), settings())

    def test_a_missing_path_and_an_unknown_ending_are_refused(self, tmp_path: Path) -> None:
        (tmp_path / "notes.doc").write_text("x")
        for path, message in (("nowhere", "no file or folder"), ("notes.doc", "no known kind")):
            with pytest.raises(BadData, match=message):
                Tape(tmp_path / path, settings())

    def test_a_folder_without_data_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(BadData, match="no data file"):
            Tape(tmp_path, settings())

    def test_tables_and_lines_do_not_mix(self, tmp_path: Path) -> None:
        for name in ("a.csv", "b.jsonl"):
            write_ticks(tmp_path / name, TICKS)
        with pytest.raises(BadData, match="both tables and JSON lines"):
            Tape(tmp_path, settings())

    @pytest.mark.parametrize("ending", [".parquet", ".csv.gz", ".jsonl.gz"])
    def test_a_truncated_file_is_refused_with_a_remedy(self, tmp_path: Path, ending: str) -> None:
        path = tmp_path / f"t{ending}"
        write_ticks(path, TICKS)
        path.write_bytes(path.read_bytes()[:-12])
        with pytest.raises(BadData, match="truncated"):
            list(Tape(path, settings()))

    def test_a_file_that_is_not_what_its_name_says_is_refused(self, tmp_path: Path) -> None:
        for name in ("t.parquet", "t.csv.gz", "t.jsonl.gz"):
            (tmp_path / name).write_bytes(b"symbol,ts,price\nA,1,2\n")
            with pytest.raises(BadData, match="cannot be read"):
                list(Tape(tmp_path / name, settings()))

    @pytest.mark.parametrize(
        ("text", "key"), [("symbol,when,price\nA,1,2\n", "ts"), ("symbol,ts,last\nA,1,2\n", "price")]
    )
    def test_a_missing_column_is_named_beside_what_is_there(self, tmp_path: Path, text: str, key: str) -> None:
        with pytest.raises(BadData, match=rf"no column '{key}'.*codec\.fields\.{key}; it has: .*symbol"):
            Tape(csv(tmp_path, text), settings())

    def test_a_mapped_symbol_column_must_be_there(self, tmp_path: Path) -> None:
        with pytest.raises(BadData, match="no column 'Name'"):
            Tape(csv(tmp_path, "symbol,ts,price\nA,1,2\n"), settings(codec__fields__symbol="Name"))

    def test_a_symbol_that_no_record_can_hold_is_refused_not_cut_short(self, tmp_path: Path) -> None:
        with pytest.raises(BadData, match="longer than 48 bytes"):
            Tape(csv(tmp_path, f"symbol,ts,price\n{'x' * 49},1,2\n"), settings())


def fields(**names: str) -> dict[str, str]:
    return {f"codec__fields__{key}": name for key, name in names.items()}


class TestRealFiles:
    @pytest.mark.parametrize(
        ("name", "options", "rows"),
        [
            ("ticks/fxcm_nzdusd_quotes_20140501_20140513.parquet", fields(ts="ts_utc"), 761_850),
            ("ticks/es_futures_trades_2013-09.parquet", fields(ts="DateTime", price="Price", size="Volume"), 500_000),
            ("ticks/lobster_aapl_amzn_goog_2012-06-21.parquet", fields(ts="ts_utc"), 225_494),
            (
                "ticks/binance_trades_20240808.parquet",
                {**fields(ts="E", size="qty"), "codec__time_unit": "ms"},
                55_270,
            ),
            ("ticks/truefx_usdjpy_ticks_2013-01.csv", fields(ts="timestamp"), 1_000),
            ("bars/sp500_daily_201302_201709.parquet", fields(ts="date", symbol="Name"), 4 * 574_140),
            ("bars/6EH4_cme_1min_2024-01.csv.gz", fields(ts="timestamp_utc"), 4 * 29_996),
            (
                "bars/arch_nasdaq_daily.csv.gz",
                fields(ts="Date", open="Open", high="High", low="Low", close="Close", volume="Volume"),
                4 * 5_031,
            ),
            ("academic/ETTm2.csv.gz", {**fields(ts="date"), "codec__layout": "wide"}, 69_680 * 7),
            ("academic/weather.csv.gz", {**fields(ts="date"), "codec__layout": "wide"}, 52_696 * 21),
        ],
    )
    def test_every_row_is_replayed_in_time_order(
        self, shared_data: Path, name: str, options: dict[str, str], rows: int
    ) -> None:
        tape = Tape(shared_data / name, settings(**options))
        found = np.concatenate([batch.data.view(PACKED)["ts"] for batch in tape])
        assert tape.rows == len(found) == rows
        assert (np.diff(found) >= 0).all()
        assert found[0] > 0

    def test_hourly_bars_of_27_symbols_are_rebuilt_exactly(self, shared_data: Path) -> None:
        path = shared_data / "bars" / "crypto_binance_1h_27sym_2023_202509.parquet"
        found = pl.DataFrame(records(path, settings(**fields(ts="timestamp")), to_ns=1_680_000_000 * 10**9))
        rebuilt = (
            found.group_by(pl.col("symbol").cast(pl.String), pl.col("ts") // (3600 * 10**9))
            .agg(
                open=pl.col("price").first(), high=pl.col("price").max(), low=pl.col("price").min(),
                close=pl.col("price").last(), volume=pl.col("size").sum(),
            )
            .sort("symbol", "ts")
        )  # fmt: skip
        original = (
            pl.read_parquet(path).with_columns(ts=pl.col("timestamp").dt.epoch("s") // 3600)
            .filter(pl.col("ts") * 3600 < 1_680_000_000).sort("symbol", "ts")
        )  # fmt: skip
        assert rebuilt.height == original.height > 30_000
        for name in ("symbol", "ts", "open", "high", "low", "close", "volume"):
            assert (rebuilt[name] == original[name]).all(), name

    def test_the_raw_feed_is_merged_by_receive_time(self, shared_data: Path) -> None:
        stamps = np.concatenate([batch.stamps_ns for batch in Tape(shared_data / "raw_feed" / "binance", settings())])
        assert len(stamps) == 332_200
        assert (np.diff(stamps) >= 0).all()

    def test_a_raw_line_begins_with_its_message(self, shared_data: Path) -> None:
        path = shared_data / "raw_feed" / "binance" / "spot_btcusdt_20240808.jsonl.gz"
        with gzip.open(path) as file:
            stamp, message = file.readline().rstrip(b"\n").split(b" ", 1)
        batch = next(iter(Tape(path, settings(), chunk=10)))
        assert batch.message(0) == message
        assert batch.stamps_ns[0] == int(stamp)
