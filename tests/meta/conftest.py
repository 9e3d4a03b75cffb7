"""The syntax of all files is millions of objects: nothing looks through them while their tests run, or keeps them."""

import gc
from collections.abc import Iterator

import pytest
from source import nodes


@pytest.fixture(autouse=True, scope="module")
def syntax_comes_and_goes() -> Iterator[None]:
    gc.disable()
    yield
    nodes.cache_clear()
    gc.enable()
