"""A model as records and back: in any order, with repetitions, and nothing that was changed."""

import hashlib
from pathlib import Path

import msgspec
import numpy as np
import pytest

from registrykit import model_folder, write_card
from tickcast.engine.inference.model_folder import CARD, GRAPH, MAX_FILES, PROBE, read_card, verify_strictly
from tickcast.errors import BadModel, ModelRefused, TickcastError
from tickcast.io.models import topic_records as fleet
from tickcast.io.models.topic_records import Assembler, Record, Routed, changes, hold, messages, route_message

Records = list[tuple[str, bytes]]


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(fleet, "CHUNK_BYTES", 100)
    return model_folder(tmp_path / "made")


@pytest.fixture
def assembler(tmp_path: Path) -> Assembler:
    return Assembler(tmp_path / "pieces")


def take_all(assembler: Assembler, records: list[Record] | Records) -> None:
    for key, value in records:
        assembler.take(key, value)


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def digest_of(folder: Path) -> str:
    return read_card(folder).digest


def test_the_card_comes_last_under_its_name_and_digest_and_every_piece_is_bounded(made: Path) -> None:
    records = [*messages(made)]
    assert records[-1] == (f"small/{digest_of(made)}", (made / CARD).read_bytes())
    assert max(len(value) for _, value in records[:-1]) == 100
    card = read_card(made)
    for name in (GRAPH, PROBE):
        pieces = [value for key, value in records if key.startswith(f"small/{card.artefacts[name]}/")]
        assert len(pieces) > 2
        assert b"".join(pieces) == (made / name).read_bytes()


@pytest.mark.parametrize("seed", range(4))
def test_a_model_is_whole_again_in_whatever_order_and_however_often_its_records_come(
    made: Path, assembler: Assembler, seed: int
) -> None:
    draw = np.random.default_rng(seed)
    records = [*messages(made)]
    shuffled = [records[i] for i in draw.permutation(len(records))]
    again = [shuffled[i] for i in draw.integers(0, len(shuffled), 5)]
    missing, rest = shuffled[0], [record for record in [*shuffled[1:], *again] if record != shuffled[0]]
    draw.shuffle(rest)  # type: ignore[arg-type]
    take_all(assembler, rest)
    with pytest.raises(ModelRefused, match="there is no card|are missing"):
        assembler.assemble(digest_of(made))
    assembler.take(*missing)
    folder = assembler.assemble(digest_of(made))
    assert verify_strictly(folder) == read_card(made)
    assert contents(folder) == contents(made)


def test_two_versions_of_a_name_and_a_model_that_shares_files_stand_beside_each_other(
    tmp_path: Path, made: Path, assembler: Assembler
) -> None:
    twin = model_folder(tmp_path / "twin", "twin")
    newer = model_folder(tmp_path / "newer", shift=0.5)
    for folder in (made, twin, newer):
        take_all(assembler, [*messages(folder)])
    for folder in (made, twin, newer):
        assert contents(assembler.assemble(digest_of(folder))) == contents(folder)


def test_a_changed_byte_is_found_and_the_piece_can_come_again(made: Path, assembler: Assembler) -> None:
    records = [*messages(made)]
    key, value = records[1]
    changed = value[:50] + bytes([value[50] ^ 1]) + value[51:]
    take_all(assembler, [(key, changed) if one[0] == key else one for one in records])
    with pytest.raises(BadModel, match="not of that SHA-256"):
        assembler.assemble(digest_of(made))
    assembler.take(key, value)
    assert contents(assembler.assemble(digest_of(made))) == contents(made)


def test_a_file_that_somebody_cut_otherwise_does_not_hide_the_whole_one(made: Path, assembler: Assembler) -> None:
    sha256 = read_card(made).artefacts[GRAPH]
    take_all(assembler, [(f"small/{sha256}/0.1", b"another content"), *messages(made)])
    assert contents(assembler.assemble(digest_of(made))) == contents(made)


def test_a_changed_card_and_a_card_under_another_key_are_refused(made: Path, assembler: Assembler) -> None:
    *pieces, (key, card) = messages(made)
    take_all(assembler, pieces)
    with pytest.raises(BadModel, match="does not match its digest"):
        assembler.take(key, card.replace(b'"lookback":8', b'"lookback":9'))
    with pytest.raises(ModelRefused, match="is of small"):
        assembler.take(f"other/{digest_of(made)}", card)
    with pytest.raises(ModelRefused, match="is of small"):
        assembler.take("small/" + "0" * 64, card)
    write_card(made, artefacts={"../outside": "0" * 64})
    with pytest.raises(BadModel, match="outside its folder"):
        assembler.take(key, (made / CARD).read_bytes())
    many = write_card(made, artefacts={f"f{number}": "0" * 64 for number in range(MAX_FILES + 1)})
    with pytest.raises(ModelRefused, match=f"more than {MAX_FILES} files"):
        assembler.take(f"small/{many.digest}", (made / CARD).read_bytes())
    assembler.take(key, card)
    assert assembler.assemble(key.partition("/")[2]).is_dir()


def test_tombstones_take_cards_pieces_and_routes_back(made: Path, assembler: Assembler, tmp_path: Path) -> None:
    *pieces, (key, card) = messages(made)
    take_all(assembler, [*pieces, (key, card), (key, None)])
    with pytest.raises(ModelRefused, match="there is no card"):
        assembler.assemble(digest_of(made))
    take_all(assembler, [(key, card), *((piece, None) for piece, _ in pieces)])
    with pytest.raises(ModelRefused, match="are missing"):
        assembler.assemble(digest_of(made))
    assert not [*(tmp_path / "pieces").glob("*-small/*")]


def test_routes_are_told_with_the_models(assembler: Assembler) -> None:
    for route, digest in (("default", "a"), ("symbol:BTC/USDT", "b"), ("group:x", "c"), ("default", "d")):
        assembler.take(*route_message(Routed(route=route, digest=digest, at_ns=5)))
    assembler.take("@group:x", None)
    assert assembler.routes == {"default": "d", "symbol:BTC/USDT": "b"}
    _, value = route_message(Routed(route="default", digest="z", at_ns=7))
    foreign = msgspec.json.encode(Routed(route="default", digest="z", at_ns=7, schema=2))
    for key, bad in (("@other", value), ("@default", b"{"), ("@default", b"\xff"), ("@default", foreign)):
        with pytest.raises(ModelRefused):
            assembler.take(key, bad)
    assert assembler.routes["default"] == "d"


def after(held: dict[str, str], *given: list[Record]) -> dict[str, str]:
    for records in given:
        for record in records:
            hold(held, *record)
    return held


def test_a_topic_is_written_what_it_lacks_and_loses_what_no_route_wants(tmp_path: Path, made: Path) -> None:
    newer = model_folder(tmp_path / "newer", shift=0.5)
    routes = [Routed(route="default", digest=digest_of(made), at_ns=1)]
    held: dict[str, str] = {}
    first = [*changes([made], routes, held)]
    assert first == [*messages(made), route_message(routes[0])]
    after(held, first)
    assert not [*changes([made], routes, held)]  # compaction keeps these; a restart writes nothing
    key, value = first[1]
    hold(held, key, b"x" + (value or b""))
    assert [*changes([made], routes, held)] == [first[1]]  # somebody changed it

    replaced = [Routed(route="default", digest=digest_of(newer), at_ns=2)]
    second = [*changes([newer], replaced, after(held, [first[1]]))]
    written = [record for record in second if record[1] is not None]
    retired = {key for key, value in second if value is None}
    assert second == [*written, *((key, None) for key in sorted(retired))]
    shared = {key for key, _ in messages(made)} & {key for key, _ in messages(newer)}
    assert retired == {key for key, _ in messages(made)} - shared
    assert dict(written) == {key: value for key, value in messages(newer) if key not in shared} | dict(
        [route_message(replaced[0])]
    )
    after(held, second)
    assert {value for _, value in changes([], [], held)} == {None}  # rolled back: nothing is left
    assert set(held) == {key for key, _ in changes([], [], held)}


def test_keys_of_another_shape_are_not_taken_for_ours() -> None:
    held: dict[str, str] = {}
    after(held, [("settings", b"x"), ("a/b", b"y"), ("", b"z")])
    assert held == {}
    hold(held, "@default", b"x")
    assert held == {"@default": hashlib.sha256(b"x").hexdigest()}
    hold(held, "@default", None)
    assert held == {}


@pytest.mark.parametrize(
    "key",
    ["small/" + "0" * 63 + "/0.1", "small/" + "0" * 64 + "/1.1", "small/" + "0" * 64 + "/0", "../" + "0" * 64 + "/0.1",
     "small/../0.1", "", "a/b", "small", "small/" + "0" * 64 + "/-1.2", "small/" + "G" * 64 + "/0.1", "\x00",
     "latest/x/y/z", "../" + "0" * 64],
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
    take_all(assembler, [*messages(made)])
    assert contents(assembler.assemble(digest_of(made))) == contents(made)
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
    take_all(assembler, [*messages(made)])
    assert contents(assembler.assemble(digest_of(made))) == contents(made)


def test_a_new_assembler_starts_with_nothing(made: Path, assembler: Assembler, tmp_path: Path) -> None:
    records = [*messages(made)]
    take_all(assembler, records[:3])
    fresh = Assembler(tmp_path / "pieces")
    take_all(fresh, records[3:])
    with pytest.raises(ModelRefused, match="are missing"):
        fresh.assemble(digest_of(made))
    take_all(fresh, records[:3])
    assert fresh.assemble(digest_of(made)).is_dir()
