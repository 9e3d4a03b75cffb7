"""Routes: symbols and groups that another model than the default one answers for. It asks nobody."""

from collections.abc import Sequence

import numpy as np

from tickcast.columns import I32, I64, U8
from tickcast.engine.core.fold import match_group
from tickcast.engine.core.ladder import NOBODY, numbers_of
from tickcast.errors import BadRequest
from tickcast.records import ModelCard
from tickcast.state import State
from tickcast.symbols import SymbolTable

DEFAULT = "default"
NO_MODEL = -1


class Routes:
    """A route is `symbol:NAME` or `group:NAME`; the symbol's own goes before its group's."""

    def __init__(self, symbols: SymbolTable, groups: dict[str, list[str]], cards: Sequence[ModelCard]) -> None:
        self._symbols = symbols
        self._patterns = groups
        self._cards = cards
        self._routes: dict[str, int] = {}
        self._model = np.full(symbols.limit, NO_MODEL, np.int32)
        self._known = 0  # symbols whose route is in `_model`

    def set(self, route: str, number: int) -> None:
        """From now on; NO_MODEL takes the route back."""
        kind, _, name = route.partition(":")
        if kind not in ("symbol", "group") or not name:
            raise BadRequest(f"no route '{route}'", remedy="default, symbol:NAME or group:NAME")
        if kind == "group" and name not in self._patterns:
            raise BadRequest(f"no group '{name}'", remedy=f"symbols.groups has: {', '.join(self._patterns) or 'none'}")
        self._routes.pop(route, None)
        if number != NO_MODEL:
            self._routes[route] = number
        self._known = 0

    def number(self, route: str) -> int:
        """The model of a route; NO_MODEL where it has none."""
        return self._routes.get(route, NO_MODEL)

    def digests(self) -> dict[str, str]:
        """The digest of each route's model."""
        return {route: self._cards[number].digest for route, number in self._routes.items()}

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

    def forget(self) -> None:
        """Codes have gone to other symbols; a route is a name's."""
        self._known = 0

    def snapshot(self) -> State:
        return State(facts={"routes": self.digests()})

    def resume(self, state: State) -> None:
        routes: dict[str, str] = state.facts["routes"]
        self._routes = dict(zip(routes, numbers_of([*routes.values()], self._cards).tolist(), strict=True))
        self._known = 0

    def _adopt_new_symbols(self) -> None:
        groups = [None, *self._patterns]
        for code in range(self._known, len(self._symbols)):
            name = self._symbols.name(code)
            of_group = self._routes.get(f"group:{groups[match_group(self._patterns, name)]}", NO_MODEL)
            self._model[code] = self._routes.get(f"symbol:{name}", of_group)
        self._known = len(self._symbols)
