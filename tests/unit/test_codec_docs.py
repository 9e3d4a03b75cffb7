"""The examples of docs/codec.md decode as its table says, and the page names every reason of the codec."""

import re
from pathlib import Path

import numpy as np
import pytest
from codec_messages import decode, rows

from tickcast.columns import PACKED
from tickcast.errors import Reason
from tickcast.settings import load
from tickcast.settings.stream import CodecSettings, CodecTopic

PAGE = (Path(__file__).parents[2] / "docs" / "codec.md").read_text(encoding="utf-8")
MESSAGES = re.findall(r"```json\n(.*?)\n```", PAGE, re.DOTALL)
TABLE = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.split("| preset | symbol |")[1].split("\n\n")[0].splitlines()[2:]
]
STAMP = 1_723_161_500_000_000_000


def test_every_preset_has_an_example() -> None:
    presets = CodecTopic.model_json_schema()["properties"]["preset"]["anyOf"][0]["enum"]
    assert {row[0].strip("`") for row in TABLE} == set(presets)
    assert len(MESSAGES) == len(TABLE)


@pytest.mark.parametrize("example", range(len(MESSAGES)))
def test_each_example_decodes_to_its_row_of_the_table(example: int) -> None:
    preset, symbol, ts, *numbers = TABLE[example]
    codec = CodecSettings(preset=preset.strip("`"))  # type: ignore[arg-type]
    ticks, rejects, symbols = decode([MESSAGES[example].encode()], codec, stamps=[STAMP])
    expected = [float(number or "nan") for number in numbers]
    assert len(rejects) == 0
    ((found_symbol, found_ts, *found),) = rows(ticks, symbols)
    assert (found_symbol, found_ts) == (symbol, STAMP if ts == "the stamp" else int(ts))
    np.testing.assert_allclose(np.array(found, np.float64), expected, rtol=1e-12)


@pytest.mark.parametrize("preset", ["binance-trade", "binance-bookticker"])
def test_binance_examples_decode_inside_a_stream_too(preset: str) -> None:
    message = next(m for m, row in zip(MESSAGES, TABLE, strict=True) if row[0] == f"`{preset}`")
    wrapped = f'{{"stream":"btcusdt@x","data":{message}}}'.encode()
    ticks, rejects, _ = decode([wrapped], CodecSettings(preset=preset), stamps=[STAMP])  # type: ignore[arg-type]
    assert (len(ticks), len(rejects)) == (1, 0)


def test_the_page_names_every_reason_of_the_codec() -> None:
    assert not [r.name for r in Reason if 0 < r < Reason.LATE and f"| `{r.name.lower()}` |" not in PAGE]


def test_the_packed_layout_is_that_of_the_page() -> None:
    shown = {name: int(at) for name, at in re.findall(r"^\| `(\w+)` \| (\d+) \|", PAGE, re.MULTILINE)}
    assert shown == {name: PACKED.fields[name][1] for name in PACKED.names}  # type: ignore[index, union-attr]
    assert PACKED.itemsize == 96


def test_the_topics_of_the_example_are_decoded_each_in_its_own_way(tmp_path: Path) -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "topics.toml").write_text(example)
    codec = load([tmp_path / "topics.toml"], environ={})[0].codec
    trade = next(m for m, row in zip(MESSAGES, TABLE, strict=True) if row[0] == "`binance-trade`")
    ticks, _, symbols = decode([trade.encode()], codec, topic="binance")
    assert rows(ticks, symbols)[0][0] == "bn:BTCUSDT"
    ticks, _, symbols = decode([b'{"symbol":"X","ts":1700000000000,"last":2}'], codec, topic="desk")
    assert rows(ticks, symbols)[0][:3] == ("X", 1_700_000_000_000_000_000, 2.0)


@pytest.mark.parametrize(
    ("text", "ns"),
    [("2023-11-14T22:13:20.5Z", 1_700_000_000_500_000_000), ("2023-11-14 22:13:20+01:00", 1_699_996_400_000_000_000)],
)
def test_the_times_of_the_page_are_read(text: str, ns: int) -> None:
    assert text in PAGE
    ticks, _, _ = decode([b'{"symbol":"X","ts":"%b","price":1}' % text.encode()])
    assert ticks.ts.tolist() == [ns]
