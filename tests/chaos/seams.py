"""A daemon that kills or stops itself: `python seams.py SEAM TIMES SIGNAL run --config FILE` runs `tickcast run ...`,
and raises the signal when it has passed that seam so often. The seams are put in from here; the daemon has no hooks.
"""

import os
import signal
import sys
from typing import Any

from aiokafka import AIOKafkaProducer

from tickcast.io.kafka.delivery import Delivery
from tickcast.io.kafka.reader import KafkaReader
from tickcast.io.store.ledger import Ledger
from tickcast.io.store.store import Store
from tickcast.live.buses.kafka import Commits
from tickcast.live.serving_models import ServingModels
from tickcast.ui import cli

SEAMS: dict[str, tuple[type, str]] = {
    "fetch": (KafkaReader, "fetch"),
    "publish": (Delivery, "settle"),  # the broker holds what the unit published; the store does not
    "store": (Store, "write"),
    "offsets": (AIOKafkaProducer, "send_offsets_to_transaction"),  # within the transaction
    "commit": (Delivery, "commit"),  # before the snapshot of this unit
    "snapshot": (Commits, "save"),
}
OF_THE_LOOP: dict[str, tuple[type, str]] = {
    "decide": (Ledger, "decide"),  # a decision is noted, and not carried out; or carried out, and this is noted
    "promote": (ServingModels, "promote"),  # it is listed; who ordered it does not know
}


def raise_after(seam: str, times: int, number: int) -> None:
    """Let the call end so many times, and then nothing come after it."""
    owner, name = (SEAMS | OF_THE_LOOP)[seam]
    call, left = getattr(owner, name), times

    async def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal left
        result = await call(*args, **kwargs)
        left -= result != []  # an empty fetch is none
        if not left:
            os.kill(os.getpid(), number)
        return result

    setattr(owner, name, counted)


if __name__ == "__main__":
    raise_after(sys.argv[1], int(sys.argv[2]), signal.Signals[sys.argv[3]])
    sys.exit(cli.main(sys.argv[4:]))
