"""Who shows progress hears how much there is with the first step, and of each step what came since the one before."""

from collections.abc import Iterator
from contextlib import contextmanager

from tickcast.progress import Progress, steps, unshown


class Heard:
    def __init__(self) -> None:
        self.of: list[tuple[int | None, str]] = []
        self.amounts: list[int] = []
        self.ended = 0

    def advance(self, amount: int = 1) -> None:
        self.amounts.append(amount)

    @contextmanager
    def shown(self, total: int | None, title: str) -> Iterator[Progress]:
        self.of.append((total, title))
        yield self
        self.ended += 1


def test_steps_are_shown_from_the_first_on_and_as_differences() -> None:
    heard = Heard()
    with steps(heard.shown, "fit") as tell:
        assert not heard.of
        for step in (3, 4, 10):
            tell(step, 12)
        assert heard.ended == 0
    assert (heard.of, heard.amounts, heard.ended) == ([(12, "fit")], [3, 1, 6], 1)


def test_work_that_tells_nothing_shows_nothing() -> None:
    heard = Heard()
    with steps(heard.shown, "fit"):
        pass
    assert not heard.of
    with unshown(None, "fit") as nobody:
        nobody.advance(5)
