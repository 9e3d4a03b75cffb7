"""The JSON codec against the oracle: on well-formed messages, on mutated ones, on any bytes."""

import json
import math

import numpy as np
import pytest
from codec_oracle import expected, raw_of
from hypothesis import given, settings
from hypothesis import strategies as st

from tickcast.engine.codec.decode import Decoder
from tickcast.errors import Reason
from tickcast.settings.stream import CodecSettings, Fields
from tickcast.symbols import SymbolTable

OFF_THE_FAST_PATH = '"\\u0041":0'  # a key with an escape: the scanner leaves such a message to the careful path
BLANKS = st.sampled_from(["", "", "", " ", "\n\t", " \r "])
PLAIN = st.characters(codec="ascii", min_codepoint=32, exclude_characters='"\\')
NAMES = st.one_of(st.text(PLAIN, min_size=1, max_size=12), st.text(PLAIN, max_size=50), st.text(max_size=12))


def decode(messages, unit="ns", prefix="", limit=1000):
    table = SymbolTable(limit)
    codec = CodecSettings(time_unit=unit, symbol_prefix=prefix, fields=Fields(sequence="seq"))
    ticks, rejects = Decoder(codec, table).decode(raw_of(messages))
    return ticks, rejects, table


def outcomes(messages, **options):
    """What became of each message, in the oracle's terms."""
    ticks, rejects, table = decode(messages, **options)
    rows = zip(ticks.symbol, ticks.ts, ticks.price, ticks.size, ticks.bid, ticks.ask, ticks.sequence)
    found = {int(row): (table.name(values[0]), *(v.item() for v in values[1:])) for row, values in zip(ticks.row, rows)}
    assert len(ticks) + len(rejects) == len(messages)
    found |= {int(row): Reason(int(reason)) for row, reason in zip(rejects.row, rejects.reason)}
    assert sorted(found) == list(range(len(messages)))
    return [found[row] for row in range(len(messages))]


def same(a, b):
    if isinstance(a, Reason) or isinstance(b, Reason):
        return a is b
    return all(x == y or (x != x and y != y) for x, y in zip(a, b))


def agree(messages, unit="ns", prefix=""):
    for message, got in zip(messages, outcomes(messages, unit=unit, prefix=prefix)):
        want = expected(message, unit, prefix)
        assert same(got, want), (message, got, want)


@st.composite
def decimals(draw):
    whole = draw(st.one_of(st.integers(0, 10**5), st.integers(0, 10**22)))
    places = draw(st.integers(0, 24) | st.integers(1, 9))
    fraction = f".{draw(st.integers(0, 10**places - 1)):0{places}d}" if places else ""
    return f"{draw(st.sampled_from(['', '', '-']))}{whole}{fraction}"


ODD_NUMBERS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.integers(-(10**30), 10**30).map(str),
    st.tuples(st.integers(-(10**19), 10**19), st.integers(-400, 400)).map("{0[0]}e{0[1]}".format),
    st.tuples(decimals(), st.sampled_from("eE"), st.sampled_from(["", "+", "-"]), st.integers(0, 30)).map(
        lambda parts: "".join(map(str, parts))
    ),
)
NUMBERS = st.one_of(decimals(), decimals(), ODD_NUMBERS)
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(PLAIN),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(PLAIN, max_size=4), inner, max_size=3),
    max_leaves=8,
).map(json.dumps)
STRANGE_JUNK = st.sampled_from(['"\\n\\"\\/"', '"\\u00e9"', '"é"', '{"symbol":"X"}', "1e999", "9" * 30])


@st.composite
def quoted(draw, texts):
    text = draw(texts)
    return f'"{text}"' if draw(st.booleans()) else text


@st.composite
def instants(draw):
    moment = draw(st.datetimes()).isoformat(sep=draw(st.sampled_from("Tt ")))
    return f'"{moment}{draw(st.sampled_from(["Z", "z", "+00:00", "-07:30", "+14:00", "+24:00", ""]))}"'


TAME_NUMBERS = st.tuples(st.integers(-(10**6), 10**9), st.integers(0, 10**6)).map("{0[0]}.{0[1]}".format)
TAME_TIMES = st.one_of(st.integers(0, 2 * 10**9).map(str), st.just('"2024-08-08T23:54:14.123456Z"'))
ANY_TIME = st.one_of(quoted(st.integers(0, 2 * 10**18).map(str)), quoted(NUMBERS), instants())


def values(number, time, sequence):
    return {"ts": time, **dict.fromkeys(("price", "size", "bid", "ask"), quoted(number)), "seq": quoted(sequence)}


TAME = values(TAME_NUMBERS, TAME_TIMES, st.integers(0, 10**18).map(str))
WILD = values(NUMBERS, ANY_TIME, st.one_of(st.integers(-(10**20), 10**20).map(str), NUMBERS))


@st.composite
def messages(draw):
    """A tick message with its fields in any order, junk between them and blanks anywhere; half of them are tame."""
    tame = draw(st.booleans())
    name = draw(st.text(PLAIN, min_size=1, max_size=40) if tame else NAMES)
    optional = st.sampled_from([set(), {"price"}, {"bid", "ask", "size"}, {"seq", "ask"}])
    absent = draw(optional if tame else st.sets(st.sampled_from(list(WILD)), max_size=3))
    pairs = [("symbol", json.dumps(name, ensure_ascii=draw(st.booleans())))]
    pairs += [(key, draw(value)) for key, value in (TAME if tame else WILD).items() if key not in absent]
    if draw(st.integers(0, 9)) == 0:
        key, _ = pairs.pop(draw(st.integers(0, len(pairs) - 1)))
        pairs.append((key, draw(st.one_of(JUNK, st.just("null")))))
    keys = st.sampled_from(["pricey", "s", "", "t", "symbols", "e", "data"])
    pairs += draw(st.lists(st.tuples(keys, JUNK if tame else st.one_of(JUNK, STRANGE_JUNK)), max_size=2))
    if draw(st.integers(0, 14)) == 0:
        pairs.append(draw(st.sampled_from(pairs)))
    blanks = [draw(BLANKS) for _ in range(4)]
    parts = [
        f'{blanks[0]}"{key}"{blanks[1]}:{blanks[2]}{value}{blanks[3]}' for key, value in draw(st.permutations(pairs))
    ]
    return f"{blanks[3]}{{{','.join(parts)}}}{blanks[1]}".encode("utf-8", "replace")


@st.composite
def mutated(draw):
    """A message with some bytes changed, cut out, doubled, or its end cut off."""
    data = bytearray(draw(messages()))
    for _ in range(draw(st.integers(1, 2))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        kind = draw(st.integers(-4, 4)) if data else 4
        if kind < 0:
            data[at] = draw(st.sampled_from(b"0123456789eE.-"))
        elif kind == 0:
            data[at] = draw(st.sampled_from(b'"\\{}[],:-+.eE019ntf \x00\x1f\x7f\x80\xc3\xff'))
        elif kind == 1:
            del data[at : at + draw(st.integers(1, 5))]
        elif kind == 2:
            data[at:at] = data[at : at + draw(st.integers(1, 20))]
        elif kind == 3:
            del data[at:]
        else:
            data[at:at] = draw(st.binary(max_size=3))
    return bytes(data)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(st.lists(messages(), max_size=8), st.sampled_from(["s", "ms", "us", "ns"]), st.sampled_from(["", "binance:"]))
def test_well_formed_messages_decode_as_the_oracle_says(batch, unit, prefix):
    agree(batch, unit, prefix)


@pytest.mark.slow
@settings(max_examples=250, deadline=None)
@given(st.lists(mutated(), max_size=8))
def test_mutated_messages_decode_or_are_rejected_as_the_oracle_says(batch):
    agree(batch)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(st.lists(st.binary(max_size=60) | st.text('{}[]",:0.1-eE \\ntrufalse', max_size=40).map(str.encode), max_size=8))
def test_any_bytes_end_as_decoded_or_rejected(batch):
    agree(batch)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(messages())
def test_scanner_and_careful_path_read_a_message_alike(message):
    body = message.decode().lstrip(" \t\r\n")
    careful = f"{{{OFF_THE_FAST_PATH}{'' if body[1:].lstrip().startswith('}') else ','}{body[1:]}".encode()
    fast, slow = outcomes([message, careful])
    assert same(fast, slow)


@settings(max_examples=300, deadline=None)
@given(NUMBERS)
def test_a_number_equals_the_double_that_python_reads(text):
    got = outcomes([b'{"symbol":"A","ts":1,"price":%b}' % text.encode()])[0]
    if math.isinf(float(text)):
        assert got is Reason.BAD_NUMBER
    else:
        assert got[2] == float(text)


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(st.lists(mutated() | messages(), min_size=1, max_size=12), st.data())
def test_where_a_batch_is_cut_changes_nothing(batch, data):
    cut = data.draw(st.integers(0, len(batch)))
    whole_table, cut_table = SymbolTable(3), SymbolTable(3)
    whole, rejects = Decoder(CodecSettings(), whole_table).decode(raw_of(batch))
    decoder = Decoder(CodecSettings(), cut_table)
    parts = [decoder.decode(raw_of(part)) for part in (batch[:cut], batch[cut:])]
    assert [r for _, part in parts for r in part.reason] == list(rejects.reason)
    assert [s for part, _ in parts for s in part.symbol] == list(whole.symbol)
    assert whole_table.names() == cut_table.names()


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(mutated() | messages())
def test_only_a_tick_adds_a_symbol(message):
    ticks, _, table = decode([message])
    assert len(table) == len(np.unique(ticks.symbol))


@pytest.mark.parametrize("decimals", range(23))
def test_doubles_of_17_digits_read_exactly_at_every_number_of_decimals(decimals):
    rng = np.random.default_rng(decimals)
    texts = [
        f"{m // 10**decimals}.{m % 10**decimals:0{max(decimals, 1)}d}"
        for m in rng.integers(10**16, 10**17, 500).tolist()
    ]
    got = outcomes([b'{"symbol":"A","ts":1,"price":%b}' % text.encode() for text in texts])
    assert [row[2] for row in got] == [float(text) for text in texts]
