"""The worked examples of docs/store.md run, and answer, on a store that holds something of everything."""

import re
from pathlib import Path

import pytest

from storekit import SECOND, T0, open_store, store_settings, unit

PAGE = (Path(__file__).parents[2] / "docs" / "store.md").read_text()
EXAMPLES = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)


def test_the_page_has_examples():
    assert len(EXAMPLES) >= 8


@pytest.mark.parametrize("sql", EXAMPLES)
async def test_an_example_of_the_store_page_answers(tmp_path, sql):
    store = open_store(store_settings(tmp_path, store__keep_days=1))
    await store.write(unit(0, 40))
    await store.roll_off(T0 + 3 * 86_400 * SECOND)
    await store.write(unit(40, 40))
    _, rows = await store.query(sql.replace("ARCHIVE", str(tmp_path / "archive")))
    assert rows
    await store.close()


async def test_what_the_examples_say_is_right(tmp_path):
    store = open_store(store_settings(tmp_path))
    await store.write(unit(0, 90))
    by_title = {sql.split(" FROM ")[0]: sql for sql in EXAMPLES}
    errors = next(sql for head, sql in by_title.items() if "pinball_naive" in head)
    _, rows = await store.query(errors)
    assert rows == [("naive", step, n, 0.75, 1.0, 0.25) for step, n in ((1, 60), (2, 90), (3, 90))]
    await store.close()
