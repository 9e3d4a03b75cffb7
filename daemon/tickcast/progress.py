"""How far long work is. Whoever works tells it; who shows it, and how, is up to the caller."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Protocol


class Progress(Protocol):
    def advance(self, amount: int = 1) -> None:
        """So much more is done."""


Shown = Callable[[int | None, str], AbstractContextManager[Progress]]  # how much in all, where that is known; of what


class _Unshown:
    def advance(self, amount: int = 1) -> None:
        """Nobody looks."""


def unshown(total: int | None, title: str) -> AbstractContextManager[Progress]:
    return nullcontext(_Unshown())


@contextmanager
def steps(shown: Shown, title: str) -> Iterator[Callable[[int, int], None]]:
    """What takes `step, steps` of work that says how much it is with its first step."""
    with ExitStack() as stack:
        begun: list[Progress] = []
        last = 0

        def tell(step: int, of: int) -> None:
            nonlocal last
            if not begun:
                begun.append(stack.enter_context(shown(of, title)))
            begun[0].advance(step - last)
            last = step

        yield tell
