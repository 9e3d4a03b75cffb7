"""After warming up, the first real message waits for no compiler."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TIMEOUT_S = 170
PROGRAM = """
import sys
from tickcast.live.compile_kernels import warm_up
from tickcast.settings import load

warm_up(load(overrides={sys.argv[1]: sys.argv[2]}, environ={})[0])
from tickcast.engine.codec import arrow

warmed = len(arrow.settle_columns.signatures)
from codec_messages import decode
import pyarrow as pa

names = pa.array(["A", "B", None, "A"]).dictionary_encode()
full = pa.table({"symbol": names, "ts": [1, 2, 3, 4], "price": ["1.5", "2.5", "3.5", "x"], "bid": [1, None, 2, 3]})
sink = pa.BufferOutputStream()
with pa.ipc.new_stream(sink, full.schema) as stream:
    stream.write_table(full)
from tickcast.settings.stream import CodecSettings

ticks, _, _ = decode([sink.getvalue().to_pybytes()], CodecSettings(kind="arrow"))
print(warmed, len(arrow.settle_columns.signatures), len(ticks))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "value", "warmed"),
    [("codec.kind", "arrow", 1), ("codec.topics.a.kind", "arrow", 1), ("codec.kind", "json", 0)],
)
def test_the_arrow_kernel_is_compiled_where_a_topic_has_arrow_messages(setting: str, value: str, warmed: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, setting, value], capture_output=True, text=True, timeout=TIMEOUT_S,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "unit")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(warmed), "1", "2"]
