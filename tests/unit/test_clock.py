"""Clocks: the system's runs, the set one stands still until it is told, and ids never repeat."""

import re
import time

from tickcast.clock import SetClock, SystemClock, fresh_id


def test_the_system_clock_gives_wall_time_in_nanoseconds():
    before = time.time_ns()  # noqa: TID251 - it is what the clock is compared with
    now = SystemClock().now_ns()
    assert before <= now <= time.time_ns()  # noqa: TID251


def test_the_set_clock_stands_still_and_never_goes_back():
    clock = SetClock(5)
    assert (clock.now_ns(), clock.now_ns()) == (5, 5)
    clock.advance_to(9)
    clock.advance_to(7)
    assert clock.now_ns() == 9


def test_monotonic_time_runs_on_both_clocks_even_while_the_set_one_stands_still():
    for clock in (SystemClock(), SetClock()):
        first = clock.monotonic_ns()
        assert all(clock.monotonic_ns() >= first for _ in range(100))
        assert any(clock.monotonic_ns() > first for _ in range(1_000_000))


def test_a_fresh_id_has_32_hex_digits_and_is_new_each_time():
    ids = {fresh_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(re.fullmatch(r"[0-9a-f]{32}", one) for one in ids)
