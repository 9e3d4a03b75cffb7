"""An engine that goes on from a snapshot says bit by bit what the engine says that was never stopped."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from snapshotkit import KINDS, Running, Turn, differences, small_settings, tape, turns
from tickcast.io.store import snapshot
from tickcast.settings import Settings


def restarted(options: Settings, some: list[Turn], cuts: list[int]) -> Running:
    """One engine after the other, each going on from the file that the one before left at a cut."""
    running, at = Running(options), 0
    with tempfile.TemporaryDirectory() as folder:
        for cut in cuts:
            running.take(some[at:cut])
            snapshot.write(Path(folder), running.engine.snapshot(), options)
            found = snapshot.newest_valid(Path(folder), options, not_beyond=running.engine.positions)
            assert found.state is not None, found.refused
            before, running, at = running, Running(options), cut
            running.engine.resume(found.state)
            running.outcomes = before.outcomes
            assert not [*differences(before.engine, running.engine)]
    return running.take(some[at:])


@pytest.mark.slow
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(kind=st.sampled_from(KINDS), seed=st.integers(0, 10_000), data=st.data())
def test_a_run_cut_anywhere_gives_every_outcome_and_figure_of_one_that_was_not(
    kind: dict[str, object], seed: int, data: st.DataObject
) -> None:
    options, some = small_settings(**kind), turns(tape(seed, 900), seed)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(some)), min_size=1, max_size=3)))
    whole = Running(options).take(some)
    parts = restarted(options, some, cuts)
    assert not [*differences(whole.outcomes, parts.outcomes)]
    assert not [*differences(whole.accuracy(), parts.accuracy())]
    assert not [*differences(whole.engine, parts.engine)]


def test_the_tape_holds_all_that_a_snapshot_must_survive() -> None:
    """Or the property above would prove nothing."""
    options = small_settings(**KINDS[0])
    running = Running(options).take(turns(tape(1), 1))
    reasons = {"ACCEPTED", "MALFORMED", "LATE", "NON_POSITIVE", "JUMP", "OUTLIER", "DUPLICATE",
               "SYMBOL_IN_TWO_PARTITIONS"}  # fmt: skip
    from tickcast.errors import Reason

    seen = {Reason(i).name for i, n in enumerate(running.engine.builder.counts()) if n}
    assert reasons <= seen
    bars = [batch for outcome in running.outcomes for batch in outcome.bars]
    assert any((batch.mask == 0).any() for batch in bars)
    assert any(batch.gap.any() for batch in bars)
    rungs = {int(r) for outcome in running.outcomes for f in outcome.forecasts for r in f.rung}
    assert len(rungs) == 3
    assert sum(len(s) for outcome in running.outcomes for s in outcome.scores) > 300
    assert len(running.accuracy()) > 10
