"""What the store knows of searches before a new one, as its job finds it. How alike their data are, the job judges."""

import msgspec

from tickcast.io.jobs.folder import Result
from tickcast.io.jobs.orders import AutoOrder, Order, TuneOrder
from tickcast.io.jobs.past import NO_PAST, EarlierSearch, Past
from tickcast.io.store.ledger import Ledger
from tickcast.io.store.ledger_rows import TrajectoryRow
from tickcast.records import JobRow

OUT_OF_TIME = "out_of_time"


async def past_of(order: Order, ledger: Ledger) -> Past:
    """For any job but a search, and where none is asked for, there is none; for `auto` those of all kinds."""
    if isinstance(order, AutoOrder):
        return Past(trajectories=await ledger.trajectories())
    if not isinstance(order, TuneOrder) or not order.past_searches:
        return NO_PAST
    return Past(trajectories=await ledger.trajectories(order.fit.kind))


async def going_on(order: Order, ledger: Ledger) -> tuple[Order, Past]:
    """With the last search for the same and all that it went on from, where that had no time left to try enough."""
    past = await past_of(order, ledger)
    if not isinstance(order, TuneOrder) or past == NO_PAST:
        return order, past
    alike = (found for row in await ledger.jobs("done") if (found := _same_search(row, order)) is not None)
    last = next(alike, None)
    known = {row.job: row for row in past.trajectories}
    earlier = [await _earlier(known[job], ledger) for job in last or [] if job in known]
    if sum(len(search.trials) for search in earlier) >= order.trials:
        earlier = []
    order = msgspec.structs.replace(order, earlier=[search.job for search in earlier])
    return order, msgspec.structs.replace(past, earlier=earlier)


def _same_search(row: JobRow, order: TuneOrder) -> list[str] | None:
    """Of a job that was one for the same, the jobs to go on from; None of any other."""
    if row.kind != order.job:
        return None
    try:
        before = msgspec.json.decode(row.order_json, type=TuneOrder)
    except msgspec.DecodeError:  # of a version that asked otherwise
        return None
    if before.recipe != order.recipe:
        return None
    ended = msgspec.json.decode(row.result_json, type=Result)
    return [*before.earlier, row.id] if ended.status == OUT_OF_TIME else []


async def _earlier(row: TrajectoryRow, ledger: Ledger) -> EarlierSearch:
    return EarlierSearch(job=row.job, signature=row.signature, trials=await ledger.trials(row.job))
