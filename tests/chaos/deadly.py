"""A daemon that certain messages are the death of, started again after each: `python deadly.py run --config FILE`.

It prints how each life ended. All of a life's imports were done before it began, so that a start takes little; what is
deadly is put in from here.
"""

import ctypes
import os
import signal
import sys
import time
import traceback
from typing import Any, NoReturn

from tickcast.columns import RawBatch
from tickcast.engine.codec.decode import Decoder
from tickcast.io.kafka import events
from tickcast.io.kafka.blob import Blob
from tickcast.live import daemon  # noqa: F401
from tickcast.live.buses import kafka_edges, kafka_group  # noqa: F401
from tickcast.ui import cli

MOST_LIVES = 20
DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG
DEEDS = {
    b"deadly crash": lambda: ctypes.string_at(0),
    b"deadly hang": lambda: time.sleep(1000),
    b"deadly grip": lambda: ctypes.PyDLL(None).sleep(1000),  # and nobody else gets the interpreter
    b"deadly kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    b"deadly error": lambda: 1 // 0,
}
DEADLY_BATCH = b"deadly batch"  # already to those who open it


def arm() -> None:
    decode, open_blob = Decoder.decode, events.open_blob

    def deadly_decode(decoder: Decoder, raw: RawBatch) -> Any:
        for row in range(len(raw)):
            for word, deed in DEEDS.items():
                if word in raw.message(row):
                    deed()
        return decode(decoder, raw)

    def deadly_open(blob: Blob, **limits: Any) -> Any:
        for batch in blob.batches:
            if DEADLY_BATCH in blob.data[batch["position"] : batch["end"]]:
                os.kill(os.getpid(), signal.SIGKILL)
        return open_blob(blob, **limits)

    Decoder.decode = deadly_decode  # type: ignore[method-assign]
    events.open_blob = deadly_open


def main(arguments: list[str]) -> int:
    arm()
    child, wanted = 0, True

    def end(*_: object) -> None:
        nonlocal wanted
        wanted = False
        os.kill(child, signal.SIGTERM)

    for _ in range(MOST_LIVES):
        child = os.fork()
        if not child:
            live(arguments)
        signal.signal(signal.SIGTERM, end)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(f"ended with {code}", flush=True)
        if not code or not wanted:
            return code
    return 1


def live(arguments: list[str]) -> NoReturn:
    """One life, which ends with that of its supervisor."""
    ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        code = cli.main(arguments)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    os._exit(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
