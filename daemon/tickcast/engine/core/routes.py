"""Routes: symbols and groups that another model than the default one answers for. It asks nobody.

A route is `default`, `group:NAME` or `symbol:NAME`. `30%:` before one of the first two is a share of it: 30 % of its
symbols, drawn by their names. Of the routes that a symbol falls under, the narrowest decides.
"""

import hashlib
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tickcast.columns import I32, I64, U8
from tickcast.engine.core.fold import match_group
from tickcast.engine.core.ladder import NOBODY, numbers_of
from tickcast.errors import BadRequest
from tickcast.records import ModelCard
from tickcast.state import State
from tickcast.symbols import SymbolTable

DEFAULT = "default"
NO_MODEL = -1
TEXT = re.compile(r"(?:([1-9][0-9]?)%:)?(default|group:(.+))|symbol:(.+)", re.DOTALL)
OF_DEFAULT, OF_GROUP, OF_SYMBOL = range(0, 6, 2)  # how narrow the deciding route is; a share is one narrower

Symbols = npt.NDArray[np.bool_]


class Route(NamedTuple):
    """What the text of a route says."""

    whole: str  # the route that it is, or is a share of
    share: int = 100  # percent
    group: str = ""
    symbol: str = ""


def route_of(text: str) -> Route:
    """BadRequest: there is no such route."""
    found = TEXT.fullmatch(text)
    if found is None:
        raise BadRequest(f"no route '{text[:80]}'", remedy="default, group:NAME or symbol:NAME; 30%:default is a share")
    share, whole, group, symbol = found.groups("")
    return Route(whole or text, int(share or 100), group, symbol)


def narrowness(text: str) -> int:
    """The narrower of two routes decides about a symbol of both."""
    route = route_of(text)
    return (OF_SYMBOL if route.symbol else OF_GROUP if route.group else OF_DEFAULT) + (route.share < 100)


def is_drawn(name: str, share: int, key: str) -> bool:
    """Whether a symbol is of a share that is known by this key: by its name alone, so that all slots say the same, and
    each start, and of symbols that come."""
    drawn = hashlib.blake2b(name.encode(), digest_size=8, key=hashlib.sha256(key.encode()).digest())
    return int.from_bytes(drawn.digest()) * 100 < share << 64


class Routes:
    def __init__(self, symbols: SymbolTable, groups: dict[str, list[str]], cards: Sequence[ModelCard]) -> None:
        self._symbols = symbols
        self._patterns = groups
        self._groups = ["", *groups]
        self._cards = cards
        self._routes: dict[str, int] = {}
        self._shares: dict[str, str] = {}  # of a whole route
        self._model = np.full(symbols.limit, NO_MODEL, np.int32)
        self._narrow = np.zeros(symbols.limit, np.uint8)  # the route that decides
        self._group = np.zeros(symbols.limit, np.int32)
        self._known = 0  # symbols whose route is in these

    def set(self, route: str, number: int) -> None:
        """From now on; NO_MODEL takes the route back."""
        asked = self._known_route(route)
        beside = self._shares.get(asked.whole)
        if asked.share < 100 and beside not in (None, route):
            raise BadRequest(f"{beside} has a model, and a route has one share", remedy=f"roll {beside} back before")
        self._routes.pop(route, None)
        if number != NO_MODEL:
            self._routes[route] = number
        self._changed()

    def number(self, route: str) -> int:
        """The model of a route; NO_MODEL where it has none."""
        return self._routes.get(route, NO_MODEL)

    def digests(self) -> dict[str, str]:
        """The digest of each route's model."""
        return {route: self._cards[number].digest for route, number in self._routes.items()}

    def shares(self) -> list[str]:
        """The routes that are a share of another."""
        return [*self._shares.values()]

    def choose(self, model: U8, symbol: I32, bars_held: I64) -> U8:
        """`model` with the routed ones in it, where the symbol has the bars that they need."""
        if not self._routes:
            return model
        routed = self.of(symbol)
        needs = np.array([card.need_bars for card in self._cards])
        fits = (routed != NO_MODEL) & (model != NOBODY) & (bars_held >= needs[routed])
        return np.where(fits, routed, model).astype(np.uint8)

    def of(self, symbol: I32) -> I32:
        """The model of each symbol's route; NO_MODEL of one that has none."""
        self._adopt_new_symbols()
        return self._model[symbol]

    def reach(self, route: str) -> Symbols:
        """By code, the symbols that the route decides about, or would with a model: no narrower one does."""
        asked = self._known_route(route)
        self._adopt_new_symbols()
        if asked.symbol:
            its: Symbols = np.arange(len(self._narrow)) == self._symbols.find(asked.symbol)
            return its
        narrow = narrowness(route)
        found: Symbols = self._narrow <= narrow if asked.share == 100 else self._narrow == narrow
        if asked.group:
            found &= self._group == self._groups.index(asked.group)
        found[self._known :] = False
        return found

    def names_in(self, route: str) -> list[str]:
        """Of these symbols."""
        names = map(self._symbols.name, np.flatnonzero(self.reach(route)).tolist())
        return [name for name in names if name]  # a place that is spare has none

    def groups_in(self, route: str) -> I64:
        """The numbers of the groups that the route's symbols are of."""
        asked = self._known_route(route)
        if not asked.symbol and not asked.group:
            return np.arange(len(self._groups))
        group = match_group(self._patterns, asked.symbol) if asked.symbol else self._groups.index(asked.group)
        return np.array([group])

    def stands(self, route: str) -> int:
        """The model that answers for the route's symbols now; NO_MODEL: the one that is first of all."""
        asked = self._known_route(route)
        code = self._symbols.find(asked.symbol) if asked.symbol else -1
        if route in self._routes or code < 0:
            return self.number(route)
        return int(self.of(np.array([code], np.int32))[0])

    def forget(self) -> None:
        """Codes have gone to other symbols; a route is a name's."""
        self._known = 0

    def snapshot(self) -> State:
        return State(facts={"routes": self.digests()})

    def resume(self, state: State) -> None:
        routes: dict[str, str] = state.facts["routes"]
        self._routes = dict(zip(routes, numbers_of([*routes.values()], self._cards).tolist(), strict=True))
        self._changed()

    def _known_route(self, text: str) -> Route:
        route = route_of(text)
        if route.group and route.group not in self._patterns:
            raise BadRequest(
                f"no group '{route.group}'", remedy=f"symbols.groups has: {', '.join(self._patterns) or 'none'}"
            )
        return route

    def _changed(self) -> None:
        shares = [(text, route) for text in self._routes if (route := route_of(text)).share < 100]
        self._shares = {route.whole: text for text, route in shares if route.group in self._groups}
        self._known = 0

    def _adopt_new_symbols(self) -> None:
        for code in range(self._known, len(self._symbols)):
            name = self._symbols.name(code)
            self._group[code] = match_group(self._patterns, name)
            self._model[code], self._narrow[code] = self._decided(name, self._groups[self._group[code]])
        self._known = len(self._symbols)

    def _decided(self, name: str, group: str) -> tuple[int, int]:
        """The model of a symbol, and how narrow the route is that it comes from."""
        if (own := f"symbol:{name}") in self._routes:
            return self._routes[own], OF_SYMBOL
        for whole, narrow in ((f"group:{group}", OF_GROUP), (DEFAULT, OF_DEFAULT)):
            if whole == DEFAULT or group:
                share = self._shares.get(whole)
                if share is not None and is_drawn(name, route_of(share).share, self._share_key(share)):
                    return self._routes[share], narrow + 1
                if whole in self._routes:
                    return self._routes[whole], narrow
        return NO_MODEL, OF_DEFAULT

    def _share_key(self, route: str) -> str:
        """Another model on the same share has other symbols."""
        return f"{self._cards[self._routes[route]].digest} {route}"
