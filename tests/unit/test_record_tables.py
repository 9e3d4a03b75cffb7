"""A field of a record is a line of its table: whoever writes the record has it from there."""

import numpy as np
import pyarrow as pa
from msgspec import json as msgspec_json
from test_records_as_arrow import SYMBOLS, arrow, forecasts, in_json, settings, tables

from tickcast.engine.records import as_arrow, as_json
from tickcast.engine.records.fields import Kind, RecordField, RecordTable, column
from tickcast.engine.records.published import FORECASTS
from tickcast.io.store import rows
from tickcast.io.store.rows import Names, Origin, forecast_rows
from tickcast.ui.documents.schemas import struct_of

LINE = RecordField(
    "bar_number", Kind.WHOLE, "int64", column("ordinal"), int, "counts the symbol's bars", stored="bar_number"
)
LONGER = RecordTable(FORECASTS.name, FORECASTS.schema, FORECASTS.meaning, (*FORECASTS.fields, LINE))


def test_a_line_more_is_a_field_more_for_all_that_write_the_record(monkeypatch):
    for module in (as_json, as_arrow, rows):
        monkeypatch.setattr(module, "FORECASTS", LONGER)
    batch = forecasts(20)
    by_number = sorted(batch.ordinal.tolist())
    assert [list(record)[-1] for record in in_json(settings(), batch)] == ["bar_number"] * 20
    assert sorted(record["bar_number"] for record in in_json(settings(), batch)) == by_number

    written = arrow(settings()).encode(batch, SYMBOLS, produced_ns=0, sources=[("ticks", 0), ("x", 5)])
    assert sorted(pa.concat_tables(tables(written))["bar_number"].to_pylist()) == by_number

    stored = forecast_rows(batch, Names(SYMBOLS), Origin([("ticks", 0), ("x", 5)]), np.array([7, 8], np.int32))
    assert stored["bar_number"].to_pylist() == stored["ordinal"].to_pylist() == batch.ordinal.tolist()

    schemas = msgspec_json.schema_components([struct_of("Longer", LONGER)])[1]
    assert schemas["Longer"]["properties"]["bar_number"] == {
        "type": "integer",
        "description": "counts the symbol's bars",
    }


def test_json_and_arrow_name_the_same_fields_in_the_same_order():
    record = in_json(settings(), forecasts(1))[0]
    assert list(record) == as_arrow.schema_of(FORECASTS).names == [field.name for field in FORECASTS.published]
