"""A model as records and back: in any order, with repetitions, and nothing that was changed."""

from pathlib import Path

import numpy as np
import pytest

from registrykit import model_folder, write_card
from tickcast.errors import BadModel, ModelRefused, TickcastError
from tickcast.model_folder import CARD, GRAPH, PROBE, read_card, verify_strictly
from tickcast.registry import fleet
from tickcast.registry.fleet import Assembler, keys, messages, route_message

Records = list[tuple[str, bytes]]


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(fleet, "CHUNK_BYTES", 100)
    return model_folder(tmp_path / "made")


@pytest.fixture
def assembler(tmp_path: Path) -> Assembler:
    return Assembler(tmp_path / "pieces")


def take_all(assembler: Assembler, records: Records) -> list[Path]:
    return [folder for key, value in records if (folder := assembler.take(key, value)) is not None]


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_the_card_comes_last_under_its_name_and_every_piece_is_bounded(made: Path) -> None:
    records = [*messages(made)]
    assert records[-1] == ("small", (made / CARD).read_bytes())
    assert max(len(value) for _, value in records[:-1]) == 100
    card = read_card(made)
    for name in (GRAPH, PROBE):
        pieces = [value for key, value in records if key.startswith(f"small/{card.artefacts[name]}/")]
        assert len(pieces) > 2
        assert b"".join(pieces) == (made / name).read_bytes()
    assert keys(made)[-1] == "small"
    assert sorted(keys(made)) == sorted(key for key, _ in records)


@pytest.mark.parametrize("seed", range(8))
def test_a_model_is_whole_again_in_whatever_order_and_however_often_its_records_come(
    made: Path, assembler: Assembler, seed: int
) -> None:
    draw = np.random.default_rng(seed)
    records = [*messages(made)]
    shuffled = [records[i] for i in draw.permutation(len(records))]
    again = [shuffled[i] for i in draw.integers(0, len(shuffled), 5)]
    missing, rest = shuffled[:1], [*shuffled[1:], *again]
    draw.shuffle(rest)  # type: ignore[arg-type]
    rest = [record for record in rest if record not in missing]
    assert take_all(assembler, rest) == []
    (folder,) = take_all(assembler, missing)
    assert verify_strictly(folder) == read_card(made)
    assert contents(folder) == contents(made)
    assert assembler.waiting() == {}


def test_two_models_that_share_files_and_a_newer_version_of_a_name(
    tmp_path: Path, made: Path, assembler: Assembler
) -> None:
    twin = model_folder(tmp_path / "twin", "twin")
    newer = model_folder(tmp_path / "newer", shift=0.5)
    one, two, three = ([*messages(place)] for place in (made, twin, newer))
    assert take_all(assembler, [one[-1], two[-1]]) == []  # both cards wait
    assert len(assembler.waiting()) == 2
    folders = take_all(assembler, [*one[:-1], *two[:-1]])
    assert [read_card(folder).name for folder in folders] == ["small", "twin"]
    assert take_all(assembler, three[-1:]) == []
    (folder,) = take_all(assembler, three[:-1])
    assert contents(folder) == contents(newer)


def test_a_changed_byte_is_found_and_the_piece_can_come_again(made: Path, assembler: Assembler) -> None:
    records = [*messages(made)]
    key, value = records[1]
    changed = value[:50] + bytes([value[50] ^ 1]) + value[51:]
    with pytest.raises(BadModel, match="pieces of"):
        take_all(assembler, [(key, changed) if one[0] == key else one for one in records])
    assert len(assembler.waiting()) == 1
    (folder,) = take_all(assembler, records[:-1])
    assert contents(folder) == contents(made)


def test_a_changed_card_and_a_card_under_another_name_are_refused(made: Path, assembler: Assembler) -> None:
    *pieces, (name, card) = messages(made)
    take_all(assembler, pieces)
    with pytest.raises(BadModel, match="does not match its digest"):
        assembler.take(name, card.replace(b'"lookback":8', b'"lookback":9'))
    with pytest.raises(ModelRefused, match="is of small"):
        assembler.take("other", card)
    write_card(made, artefacts={"../outside": "0" * 64})
    with pytest.raises(BadModel, match="outside its folder"):
        assembler.take(name, (made / CARD).read_bytes())
    assert assembler.take(name, card) is not None


def test_tombstones_take_cards_pieces_and_routes_back(made: Path, assembler: Assembler, tmp_path: Path) -> None:
    *pieces, (name, card) = messages(made)
    assert assembler.take(name, card) is None
    assert assembler.take(name, None) is None
    assert take_all(assembler, pieces) == []
    for key in keys(made):
        assert assembler.take(key, None) is None
    assert assembler.take(name, card) is None
    assert len(next(iter(assembler.waiting().values()))) == 2
    assert not [*(tmp_path / "pieces").rglob("*.*")]


def test_routes_are_told_with_the_models(assembler: Assembler) -> None:
    for route, digest in (("default", "a"), ("symbol:BTC/USDT", "b"), ("group:x", "c"), ("default", "d")):
        assembler.take(*route_message(route, digest, 5))
    assembler.take(*route_message("group:x", None, 6))
    assert assembler.routes == {"default": "d", "symbol:BTC/USDT": "b"}
    _, value = route_message("default", "z", 7)
    for key, bad in (("@other", value), ("@default", b"{"), ("@default", b"\xff")):
        with pytest.raises(ModelRefused):
            assembler.take(key, bad)
    assert assembler.routes["default"] == "d"


@pytest.mark.parametrize(
    "key",
    ["small/" + "0" * 63 + "/0.1", "small/" + "0" * 64 + "/1.1", "small/" + "0" * 64 + "/0", "../" + "0" * 64 + "/0.1",
     "small/../0.1", "", "a/b", "small/" + "0" * 64 + "/-1.2", "small/" + "G" * 64 + "/0.1", "\x00", "latest/x/y/z"],
)  # fmt: skip
def test_a_key_of_another_shape_is_refused_by_code(assembler: Assembler, key: str, tmp_path: Path) -> None:
    for value in (b"x", None):
        with pytest.raises(ModelRefused) as caught:
            assembler.take(key, value)
        assert caught.value.code == "bad_model_record"
    assert not [*(tmp_path / "pieces").iterdir()]


def test_pieces_that_nobody_asks_for_give_way_and_a_flood_is_refused(
    made: Path, assembler: Assembler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet, "MAX_HELD_BYTES", 8000)
    monkeypatch.setattr(fleet, "MAX_CHUNK_BYTES", 3000)
    with pytest.raises(ModelRefused, match="a piece of small is larger"):
        assembler.take(f"small/{'1' * 64}/0.9", bytes(3001))
    for stray in "23456789":
        assembler.take(f"old/{stray * 64}/0.9", bytes(3000))
    (folder,) = take_all(assembler, [*messages(made)])
    assert contents(folder) == contents(made)
    flood = [(f"small/{'a' * 64}/{number}.9", bytes(3000)) for number in range(9)]
    with pytest.raises(ModelRefused, match="larger than what is held"):
        take_all(assembler, flood)


def test_rubbish_is_refused_or_held_and_never_breaks_the_assembler(made: Path, assembler: Assembler) -> None:
    draw = np.random.default_rng(3)
    for key, value in messages(made):
        for _ in range(3):
            noise = draw.bytes(30).decode("latin-1")
            for odd_key, odd_value in ((noise, value), (key[: draw.integers(0, len(key))], value), (noise, None)):
                try:
                    assembler.take(odd_key, odd_value)
                except TickcastError:
                    continue
    (folder, *_) = take_all(assembler, [*messages(made)])
    assert contents(folder) == contents(made)


def test_a_new_assembler_starts_with_nothing(made: Path, assembler: Assembler, tmp_path: Path) -> None:
    records = [*messages(made)]
    take_all(assembler, records[:3])
    fresh = Assembler(tmp_path / "pieces")
    assert take_all(fresh, records[3:]) == []
    assert len(take_all(fresh, records[:3])) == 1
