"""What comes from outside and is wrong: a clear refusal, or a counted reject; and nothing accepted is lost."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest

from livekit import WAIT_S, Live, live_settings, running
from modelkit import Fitted, model_settings
from tickcast.batch.replay import ReplayOrder, in_folder, replay
from tickcast.batch.synth import Market, json_messages
from tickcast.errors import EXIT_OK, EXIT_REFUSED
from tickcast.io.tape.tape import write_ticks
from tickcast.ui.cli import main

pytestmark = pytest.mark.slow

SECOND = 10**9
T0 = 1_700_000_000 * SECOND
SMALL = {"window__lookback": 12, "forecast__horizon": 4}


def tick(symbol: str = "A", *, second: float = 0, price: str = "1.5", size: str = "1") -> bytes:
    return f'{{"symbol":"{symbol}","ts":{T0 + int(second * SECOND)},"price":{price},"size":{size}}}'.encode()


BAD_MESSAGES = {
    b"": "empty",
    b"{": "malformed",
    b"null": "malformed",
    b"[1,2]": "malformed",
    b"\xef\xbb\xbf{": "malformed",
    b'{"symbol":"\xff\xfe","ts":1700000000000000000,"price":1,"size":1}': "malformed",
    b"[" * 100_000: "malformed",
    b'{"symbol":"' + b"A" * (1 << 20) + b'","ts":1700000000000000000,"price":1,"size":1}': "too_large",
    tick(price="NaN"): "malformed",
    tick(price="1e999"): "bad_number",
    tick(price="null"): "missing_field",
    tick(price='"much"'): "bad_number",
    tick(price="-1.5"): "non_positive",
    tick(price="0"): "non_positive",
    tick(size="-1"): "negative_size",
    b'{"symbol":"A","ts":123456789012345678901234567890,"price":1,"size":1}': "bad_time",
    b'{"symbol":"A","ts":1700000000,"price":1,"size":1}': "wrong_unit",
    b'{"symbol":"A","price":1,"size":1}': "missing_field",
    b'{"ts":1700000000000000000,"price":1,"size":1}': "missing_field",
    b'{"symbol":"","ts":1700000000000000000,"price":1,"size":1}': "bad_symbol",
}


async def test_every_bad_message_is_counted_and_kept_with_its_reason_among_good_ones(tmp_path: Path) -> None:
    settings = live_settings(tmp_path, **SMALL)
    messages = [tick(second=0)]
    for n, bad in enumerate(BAD_MESSAGES, start=1):
        messages += [bad, tick(second=n, price=f"{1 + n / 100}")]
    async with running(settings) as live:
        await live.send(messages)
        health = live.daemon.health()
    assert (health.accepted, health.rejected) == (len(BAD_MESSAGES) + 1, len(BAD_MESSAGES))
    assert health.bars == len(BAD_MESSAGES)
    with duckdb.connect(str(settings.store.path), read_only=True) as store:
        letters = store.execute("SELECT value, reason FROM dead_letters").fetchall()
    assert {bytes(value)[:200]: reason for value, reason in letters} == {
        bad[:200]: reason for bad, reason in BAD_MESSAGES.items()
    }


async def test_the_last_of_repeated_keys_and_a_bom_do_no_harm_to_what_follows(tmp_path: Path) -> None:
    double = b'{"symbol":"A","symbol":"B","ts":1700000000000000000,"price":1,"price":2,"size":1}'
    async with running(live_settings(tmp_path, **SMALL)) as live:
        await live.send([double, b"\xef\xbb\xbf" + tick("B", second=1), tick("B", second=2)])
        health = live.daemon.health()
    assert health.consumed == 3 == health.accepted + health.rejected
    assert health.accepted >= 1


async def test_symbols_past_the_limit_are_counted_and_the_others_go_on(tmp_path: Path) -> None:
    ticks = Market(seed=3, symbols=8, tick_rate_hz=60)
    tape = tmp_path / "t.parquet"
    frame = ticks.ticks(ticks.start_ns + 30 * SECOND)
    write_ticks(tape, frame)
    first = frame["symbol"].unique(maintain_order=True)[:5]
    settings = live_settings(tmp_path, **SMALL, symbols__limit=5)
    summary = await replay(in_folder(settings, tmp_path / "out"), ReplayOrder(tape, tmp_path / "out", chunk=64))
    beyond = frame.filter(~pl.col("symbol").is_in(first.implode())).height
    assert summary["reasons"]["symbol_limit"] == beyond > 50
    assert summary["accepted"] == frame.height - beyond
    assert set(pl.read_parquet(tmp_path / "out" / "bars.parquet")["symbol"]) == set(first)


def market_file(path: Path) -> bytes:
    source = Market(seed=3, symbols=3, tick_rate_hz=60)
    write_ticks(path, source.ticks(source.start_ns + 20 * SECOND))
    return path.read_bytes()


@pytest.mark.parametrize("name", ["t.parquet", "t.csv", "t.csv.gz", "t.jsonl", "t.jsonl.gz"])
@pytest.mark.parametrize("what", ["empty", "truncated"])
def test_an_empty_or_truncated_file_is_refused_by_name_or_read_to_its_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, what: str
) -> None:
    tape, out = tmp_path / name, tmp_path / "out"
    whole = market_file(tape)
    tape.write_bytes(b"" if what == "empty" else whole[: len(whole) // 2])
    code = main(["replay", "--data", str(tape), "--out", str(out), "--set", f"runtime.folder={tmp_path / 'run'}"])
    shown = capsys.readouterr()
    if what == "truncated" and name in ("t.csv", "t.jsonl"):  # text that is cut is text all the same
        assert code == EXIT_OK
        assert pl.read_parquet(out / "bars.parquet").height > 10
        return
    assert code == EXIT_REFUSED
    assert name in shown.err
    assert "Traceback" not in shown.err


def test_a_file_without_a_needed_column_is_refused_by_the_columns_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tape = tmp_path / "t.parquet"
    market_file(tape)
    pl.read_parquet(tape).drop("price").write_parquet(tape)
    assert main(["replay", "--data", str(tape), "--out", str(tmp_path / "out")]) == EXIT_REFUSED
    assert "price" in capsys.readouterr().err


def flip(path: Path) -> None:
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 0x10
    path.write_bytes(damaged)


@pytest.mark.parametrize("harm", [flip, Path.unlink], ids=["a flipped byte", "a missing file"])
@pytest.mark.parametrize("file", ["model.onnx", "weights.safetensors", "card.json", "probe.safetensors"])
def test_the_daemon_refuses_a_damaged_model_by_the_files_name(
    fitted: Fitted, tmp_path: Path, capsys: pytest.CaptureFixture[str], harm: Callable[[Path], None], file: str
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for part in fitted.models["tick"].iterdir():
        (folder / part.name).write_bytes(part.read_bytes())
    harm(folder / file)
    deployment = {"model.default": folder, "store.path": tmp_path / "s.duckdb", "runtime.folder": tmp_path / "run"}
    code = main(["run", *(part for key, value in deployment.items() for part in ("--set", f"{key}={value}"))])
    assert code == EXIT_REFUSED
    assert file in capsys.readouterr().err
    assert not (tmp_path / "s.duckdb").exists()


def test_a_model_of_other_bars_is_refused_with_both_named(
    fitted: Fitted, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = model_settings("tick", tmp_path)
    flags = [f"window.lookback={settings.window.lookback}", "forecast.horizon=4", f"store.path={tmp_path / 's'}"]
    flags += ["bars.kind=tick", "bars.every_ticks=5", f"model.default={fitted.models['tick']}"]
    assert main(["run", *(part for flag in flags for part in ("--set", flag))]) == EXIT_REFUSED
    assert "'every_ticks': 3" in (said := capsys.readouterr().err)
    assert "'every_ticks': 5" in said


def test_a_store_that_a_running_daemon_holds_is_refused_to_a_load_with_its_pid(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tape = tmp_path / "t.parquet"
    market_file(tape)
    paths = ["--set", f"store.path={tmp_path / 's.duckdb'}", "--set", f"runtime.folder={tmp_path / 'run'}"]
    command = [sys.executable, "-m", "tickcast", "run", *paths, "--set", "log.format=json"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr is not None
        next(line for line in child.stderr if "daemon_started" in line)
        code = main(["load", "--data", str(tape), *paths])
        said = capsys.readouterr().err
        child.send_signal(signal.SIGTERM)
        assert child.wait(30) == EXIT_OK
    assert code == EXIT_REFUSED
    assert str(child.pid) in said
    assert main(["load", "--data", str(tape), *paths]) == EXIT_OK


def fill_up(disk: Path) -> Path:
    """A file that takes all that is free."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            with suppress(OSError):
                while True:
                    file.write(bytes(size))
    assert os.statvfs(disk).f_bavail == 0
    return ballast


async def state_is(live: Live, state: str) -> None:
    async with asyncio.timeout(WAIT_S):
        while live.daemon.health().state != state or (state == "live" and live.daemon.session.commits.behind):
            await asyncio.sleep(0.02)


async def some_forecasts(live: Live, count: int) -> list[dict[str, Any]]:
    """So many, or more, as soon as they are published."""
    found: list[dict[str, Any]] = []
    async with asyncio.timeout(WAIT_S):
        while len(found) < count:
            found += await live.forecasts()
    return found


async def test_on_a_full_disk_forecasts_are_published_and_stored_when_there_is_room_again(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tickcast.loop.commits.RETRY_MOST_S", 0.3)
    settings = live_settings(small_disk, **SMALL, store__unit_ms=20, store__max_units_behind=10_000, bars__kind="tick")
    source = Market(seed=3, symbols=5, tick_rate_hz=400)
    messages = [message for _, message in json_messages(source.ticks(source.start_ns + 20 * SECOND))]
    part = len(messages) // 4
    async with running(settings) as live:
        await live.send(messages[:part])
        ballast = fill_up(small_disk)
        await live.send(messages[part : 2 * part], chunk=50)
        await state_is(live, "store_stalled")
        published = await some_forecasts(live, 2 * part - 5)  # the first tick of each symbol has no forecast
        await live.send(messages[2 * part : 3 * part], chunk=50)
        published += await some_forecasts(live, part)
        assert live.daemon.health().state == "store_stalled"
        ballast.unlink()
        await state_is(live, "live")
        await live.send(messages[3 * part :])
    published += await live.forecasts()
    with duckdb.connect(str(settings.store.path), read_only=True) as store:
        stored = [str(row[0]).replace("-", "") for row in store.execute("SELECT id FROM forecasts").fetchall()]
        ((next_offset,),) = store.execute("SELECT next_offset FROM offsets").fetchall()
        ((bars,),) = store.execute("SELECT count(*) FROM bars").fetchall()
    assert sorted(stored) == sorted(f["id"].replace("-", "") for f in published)
    assert len(set(stored)) == len(stored)
    assert next_offset == len(messages)
    assert bars == live.daemon.session.pump.meter.bars


async def test_with_too_many_units_behind_fetching_stops_and_goes_on_later(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tickcast.loop.commits.RETRY_MOST_S", 0.3)
    settings = live_settings(small_disk, **SMALL, store__unit_ms=10, store__max_units_behind=3, bars__kind="tick")
    source = Market(seed=3, symbols=5, tick_rate_hz=200)
    messages = [message for _, message in json_messages(source.ticks(source.start_ns + 20 * SECOND))]
    async with running(settings) as live:
        await live.send(messages[:500])
        ballast = fill_up(small_disk)
        sent = 500
        while live.daemon.session.commits.behind < 3:
            await live.send(messages[sent : sent + 10])
            sent += 10
        rest = asyncio.create_task(live.send(messages[sent:]))
        await asyncio.sleep(0.5)  # the turn that was under way may still be through; then nothing more
        stood_at = live.daemon.health().consumed
        await asyncio.sleep(0.3)
        assert live.daemon.health().state == "store_stalled"
        assert live.daemon.health().consumed == stood_at < len(messages)
        assert not rest.done()
        ballast.unlink()
        await rest
    with duckdb.connect(str(settings.store.path), read_only=True) as store:
        assert store.execute("SELECT next_offset FROM offsets").fetchall() == [(len(messages),)]
