"""The queries of docs/registry.md answer, its figures are the code's, and every code of a refusal stands on it."""

import re
from pathlib import Path

import pytest

from registrykit import PROMOTED, Registry, registry_in
from storekit import SECOND, T0
from tickcast.engine.inference.model_folder import MAX_ARTEFACT_BYTES
from tickcast.errors import ModelFault
from tickcast.io.models.topic_records import CHUNK_BYTES
from tickcast.records import CommandRow, Reply, TrialRow

PAGE = (Path(__file__).parents[2] / "docs" / "registry.md").read_text()
EXAMPLES = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
async def registry(tmp_path):
    """A parent and its child, each promoted once; a command that was done; a study of five trials."""
    async with registry_in(tmp_path) as opened:
        parent = await opened.add(dataset_hash="first")
        child = await opened.add("child", shift=0.5, parent=parent, dataset_hash="second", metrics={"skill": 0.1})
        for digest in (parent, child):
            await opened.promote(digest)
        ledger = opened.store.ledger
        row = {"audience": "fleet", "key": "ops", "role": "read", "args_json": "{}", "digest": "d", "received_ns": T0}
        await ledger.add_command(CommandRow(id="c", command="status", **row))  # type: ignore[arg-type]
        await ledger.finish_command("c", Reply(id="c", command="status", ok=True))
        await ledger.put_trials([
            TrialRow(job="j", number=n, state="complete", params={}, value=1 / (n + 1), epochs=1, seconds=1.0)
            for n in range(5)
        ])  # fmt: skip
        yield opened


@pytest.mark.parametrize("sql", EXAMPLES)
async def test_an_example_of_the_page_answers(registry: Registry, sql: str) -> None:
    _, rows = await registry.store.query(sql)
    assert rows


async def test_what_the_examples_say_is_right(registry: Registry) -> None:
    serves, then, lineage, stages, commands, trials = [(await registry.store.query(sql)).rows for sql in EXAMPLES]
    assert [(row[0], row[1], row[4]) for row in serves] == [("default", "child", "tests")]
    assert [row[1] for row in then] == ["child"]
    assert [(row[0], row[2], row[3]) for row in lineage] == [("child", "second", 0), ("small", "first", 1)]
    assert [(row[0], row[1], row[4]) for row in stages] == [
        ("retired", "small", "{}"), ("active", "child", '{"skill":0.1}'),
    ]  # fmt: skip
    assert [row[1:] for row in commands] == [("ops", "read", "status", "done", "true")]
    assert [row[1] for row in trials] == [4, 3, 2]
    registry.clock.now += 2 * 86_400 * SECOND
    await registry.models.promote("small", "default", **PROMOTED)
    assert [row[1] for row in (await registry.store.query(EXAMPLES[1])).rows] == ["child"]


def test_every_fault_and_every_bound_stands_on_the_page() -> None:
    assert not [fault.value for fault in ModelFault if f"| `{fault.value}` |" not in PAGE]
    assert f"{MAX_ARTEFACT_BYTES >> 20} MiB" in PAGE
    assert f"{CHUNK_BYTES >> 10} KiB" in PAGE
