"""The loop replayed over a stream that turns: who is retrained finds back, twice alike, and nobody knows the future."""

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest

from loopkit import FIRST, HOUR_NS, T0, loop_order, loop_settings, stream
from tickcast.batch.loop_replay.arms import arms_of
from tickcast.batch.loop_replay.host import FirstModel
from tickcast.batch.loop_replay.loop_replay import ArmDone, replay_loop, replayed
from tickcast.errors import BadData, BadModel, BadSettings
from tickcast.progress import unshown
from tickcast.ui.cli import main
from trainkit import without_children

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
JOB_BARS, TURN = 12, 1250
Found = dict[str, Any]


async def replay_all(folder: Path, frame: pl.DataFrame, **more: Any) -> Found:
    with without_children():
        order = loop_order(folder, frame, job_bars=JOB_BARS)
        return await replay_loop(loop_settings(folder, **more), order, shown=unshown)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("loop")


@pytest.fixture(scope="module")
def found(folder: Path) -> Found:
    return asyncio.run(replay_all(folder, stream()))


def arm(found: Found, key: str) -> Found:
    (one,) = (one for one in found["arms"] if one["key"] == key)
    return one


def test_who_is_retrained_by_need_finds_back(found: Found) -> None:
    told = {one["key"]: one for one in found["arms"]}
    assert [*told] == [
        "last-value", "static", "scheduled", "triggered", "static-as-fitted", "scheduled-as-fitted",
        "triggered-as-fitted",
    ]  # fmt: skip
    triggered, static, scheduled = told["triggered"], told["static"], told["scheduled"]
    assert [one["came"] for one in static["jobs"]] == ["first"]
    assert static["decisions"] == []
    assert any(run["role"] == "last_value" and run["at_ns"] for run in static["contests"])
    assert {one["name"] for one in triggered["alarms"]} >= {"drift skill", "skill_low"}
    whys = [why for job in triggered["jobs"][1:] for why in job["why"]]
    assert whys
    assert all(why.startswith(("drift with worse skill", "last value serves")) for why in whys)
    assert triggered["promotions"] >= 1
    assert triggered["gain_low"] > 0
    assert scheduled["fits"] > 2
    assert not any(why.startswith(("drift", "last value")) for job in scheduled["jobs"] for why in job["why"])
    assert told["last-value"]["skill"] == pytest.approx(0.0)
    assert found["spent"].keys() == told.keys()


def test_a_fit_sees_no_bar_of_after_its_order_and_answers_when_its_time_is_over(found: Found, folder: Path) -> None:
    (first, *others) = arm(found, "scheduled")["jobs"]
    assert first["ordered_ns"] >= T0 + FIRST * HOUR_NS
    for job in (first, *others):
        assert not job["ended_ns"] or job["ended_ns"] >= job["ordered_ns"] + JOB_BARS * HOUR_NS
    cards = [json.loads(path.read_text()) for path in (folder / "out" / "fits" / "scheduled").glob("*/card.json")]
    assert len(cards) == len(others)
    assert all(any(card["trained_to_ns"] <= job["ordered_ns"] for job in others) for card in cards)
    shadows = [row for row in arm(found, "scheduled")["decisions"] if row["kind"] == "shadow"]
    assert all(any(row["at_ns"] >= job["ended_ns"] for job in others) for row in shadows)


async def test_a_search_that_comes_due_leaves_a_candidate_as_a_fit_does(tmp_path: Path) -> None:
    given = {"schedule__max_new_bars": 0, "schedule__optimize": '["0 0 * * 1"]'}
    order = loop_order(tmp_path, stream(640, turns_at=900), job_bars=JOB_BARS, trials=3)
    (wanted,) = (arm for arm in arms_of(loop_settings(tmp_path, **given)) if arm.key == "scheduled")
    with without_children():
        done = await replayed(wanted, order, FirstModel(), unshown)
    (first, search, *_) = done.host.story.jobs
    assert (first.came, search.why) == ("first", ["cron 0 0 * * 1"])
    assert search.came != "failed"
    card = json.loads((tmp_path / "out" / "fits" / "scheduled" / "fit-2" / "card.json").read_text())
    assert (card["kind"], card["trained_to_ns"] <= search.ordered_ns) == ("ridge", True)


async def test_two_replays_tell_the_same_to_the_last_byte(tmp_path: Path) -> None:
    short = stream(520, turns_at=300)
    one, other = [await replay_all(tmp_path / name, short) for name in ("one", "other")]
    written = json.loads((tmp_path / "one" / "out" / "loop.json").read_text())
    assert written["digest"] == other["digest"]
    for each in (one, other):
        del each["spent"], each["data"]
    assert msgspec.json.encode(one) == msgspec.json.encode(other)


def known(story: Found, to_ns: int) -> Found:
    """What was so of an arm by then."""
    rows = {"jobs": "ordered_ns", "decisions": "at_ns", "served": "from_ns", "alarms": "from_ns"}
    found = {
        name: [{key: value for key, value in row.items() if key not in ("to_ns", "ended_ns")}
               for row in story[name] if row[at] <= to_ns]
        for name, at in rows.items()
    }  # fmt: skip
    return found | {"contests": [_contest(run, to_ns) for run in story["contests"] if run["begun_ns"] <= to_ns]}


def _contest(run: Found, to_ns: int) -> list[Any]:
    blocks = sum(at <= to_ns for at in run["at_ns"])
    return [run["role"], run["model"], run["at_ns"][:blocks], run["log_e"][:blocks]]


async def one_arm(folder: Path, key: str, first: FirstModel) -> ArmDone:
    """Over a stream whose prices are others from TURN on."""
    order = loop_order(folder, stream(spoilt_from=TURN), job_bars=JOB_BARS)
    (wanted,) = (arm for arm in arms_of(loop_settings(folder)) if arm.key == key)
    with without_children():
        return await replayed(wanted, order, first, unshown)


async def test_another_future_changes_nothing_that_was_decided_before(
    found: Found, folder: Path, tmp_path: Path
) -> None:
    to_ns, first = T0 + (TURN - 1) * HOUR_NS, FirstModel()
    for key in ("scheduled", "triggered"):
        other = await one_arm(tmp_path, key, first)
        story = msgspec.to_builtins(other.host.story)
        assert known(story, to_ns) == known(arm(found, key), to_ns)
        assert known(story, 1 << 62) != known(arm(found, key), 1 << 62)
        one = pl.read_parquet(folder / "out" / "arms" / key / "scores.parquet")
        before, after = (scores.drop("id").filter(pl.col("settled_ns") <= to_ns)
                         for scores in (one, pl.read_parquet(other.folder / "scores.parquet")))  # fmt: skip
        assert before.height > 3000
        assert before.equals(after, null_equal=True)
        assert len(known(story, to_ns)["jobs"]) > 1


async def test_a_fitted_model_that_is_given_serves_from_the_first_bar(
    found: Found, folder: Path, tmp_path: Path
) -> None:
    model = folder / "out" / "fits" / "static" / "first"
    given = await replay_all(tmp_path, stream(400, seed=5), model__default=model)
    assert arm(given, "static")["jobs"] == []
    assert given["from_ns"] < T0 + 50 * HOUR_NS


@pytest.mark.parametrize(
    ("more", "bars", "refused"),
    [
        ({"schedule__max_new_bars": 0}, 700, (BadSettings, "schedule.max_new_bars")),
        ({"model__default": "none"}, 700, (BadSettings, "--model naive")),
        ({}, 300, (BadData, "before the first model served")),
        ({"window__lookback": 300}, 700, (BadModel, "--first-bars")),
    ],
)
async def test_what_cannot_be_compared_is_refused_with_what_to_do(
    tmp_path: Path, more: Found, bars: int, refused: tuple[type[Exception], str]
) -> None:
    with pytest.raises(refused[0], match=refused[1]):
        await replay_all(tmp_path, stream(bars), **more)


def test_the_command_writes_a_page_that_needs_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    stream(480, turns_at=450).write_parquet("bars.parquet")
    options = ["--set", "bars.every_ms=3600000", "--set", "window.lookback=8", "--set", "forecast.horizon=1",
               "--set", "schedule.kind=ridge", "--set", "schedule.max_new_bars=200"]  # fmt: skip
    with without_children():
        command = ["replay", "--data", "bars.parquet", "--out", "out", *options]
        assert main([*command, "--loop", "--first-bars", "300", "--chunk", "160"]) == 0
        said = capsys.readouterr().out
        assert "Triggered retraining" in said
        page = Path("out/loop.html").read_text()
        assert page.count("<svg") >= 12
        assert "What the triggered arm did" in page
        assert not [word for word in ("<script", "http://", "https://", "src=") if word in page]
        assert main([*command, "--first-bars", "400"]) == 78
        assert main([*command, "--loop", "--speed", "2"]) == 1
        assert "--loop goes as fast as it can" in capsys.readouterr().err
        assert main([*command, "--loop", "--chunk", "320", "--first-bars", "300"]) == 0  # over the results of before
