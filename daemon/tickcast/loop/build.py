"""Settings -> the parts that serve: symbols, codec, features, models, engine. Live and replay are built here alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tickcast import plugin
from tickcast.engine.codec.decode import Decoder
from tickcast.engine.core.engine import Engine
from tickcast.engine.core.features import FeatureSet
from tickcast.engine.core.fold import Adjustments
from tickcast.engine.core.ladder import Ladder
from tickcast.engine.core.questions import bar_identity
from tickcast.engine.core.schedule import ALWAYS_OPEN, ClosedTime, parse_calendar
from tickcast.engine.inference.load import open_model
from tickcast.errors import BadData, BadModel, BadRequest, BadSettings, BadStore
from tickcast.io.models.artefacts import Artefacts, artefact_folder
from tickcast.plugin import Runner
from tickcast.records import ModelCard
from tickcast.settings import Settings
from tickcast.symbols import SymbolTable

RUNGS = ("naive", "seasonal", "holt")


@dataclass(frozen=True, slots=True)
class Serving:
    settings: Settings
    symbols: SymbolTable
    features: FeatureSet
    ladder: Ladder | None
    engine: Engine

    @property
    def cards(self) -> list[ModelCard]:
        return self.ladder.cards if self.ladder else []


def build(settings: Settings, *, models_made_for: Settings | None = None, by_clock: bool = False) -> Serving:
    """`models_made_for`: the deployment whose models are served, where `settings` only stand in for it. `by_clock`: the
    ticks are of now, see `Engine`."""
    symbols = SymbolTable(settings.symbols.limit)
    features = FeatureSet(settings.features.set, settings.forecast.transform)
    ladder = _ladder(settings, features, models_made_for or settings)
    engine = Engine(
        settings, symbols, Decoder(settings.codec, symbols), features, ladder, closed_time=_calendar(settings),
        adjustments=_adjustments(settings), by_clock=by_clock,
    )  # fmt: skip
    return Serving(settings, symbols, features, ladder, engine)


def _ladder(settings: Settings, features: FeatureSet, made_for: Settings) -> Ladder | None:
    """The default model, then the rungs that stand in for it while a symbol has few bars."""
    default = settings.model.default
    if default == "none":
        return None
    runners = [_rung(name, settings) for name in _rung_names(settings)]
    if default not in RUNGS:
        runners.insert(0, _net(Path(default), made_for, features))
    return Ladder(runners, _rung("naive", settings), settings)


def unreachable_rungs(settings: Settings) -> list[str]:
    """Those of the settings that never answer: a rung before them needs no more bars."""
    names = [] if settings.model.default == "none" else _rung_names(settings)
    needs = [_rung(name, settings).card.need_bars for name in names]
    return [name for at, name in enumerate(names) if at and min(needs[:at]) <= needs[at]]


def _rung_names(settings: Settings) -> list[str]:
    default = settings.model.default
    return list(dict.fromkeys([*([default] if default in RUNGS else []), *settings.model.ladder]))


def _rung(name: str, settings: Settings) -> Runner:
    runner: Runner = plugin.find("models", name)(
        transform=settings.forecast.transform, horizon=settings.forecast.horizon,
        levels=settings.forecast.quantiles, season_bars=settings.model.season_bars,
    )  # fmt: skip
    return runner


def _net(folder: Path, settings: Settings, features: FeatureSet) -> Runner:
    if not folder.exists():
        is_kind = str(folder) in plugin.names("models")
        first = f"fit it first: tickcast fit --model {folder}, then give the folder"
        remedy = first if is_kind else "see `tickcast kinds`"
        raise BadModel(f"'{folder}' is neither a rung ({', '.join(RUNGS)}) nor a model folder", remedy=remedy)
    runner = open_model(folder, tile=settings.inference.tile)
    refuse_unfit(runner.card, settings, features)
    return runner


def refuse_unfit(card: ModelCard, settings: Settings, features: FeatureSet) -> None:
    """BadModel where the model was made for another deployment."""
    for what, theirs, ours in (
        ("bars", card.bars, bar_identity(settings)),
        ("forecast.transform", card.transform, settings.forecast.transform),
        ("window.lookback", card.lookback, settings.window.lookback),
        ("window.scale", card.scale, settings.window.scale),
        ("features.set", [(f.name, f.version) for f in card.features], [(f.name, f.version) for f in features.specs]),
        ("features.future", card.future, list(settings.features.future)),
    ):
        if theirs != ours:
            raise BadModel(
                f"the model {card.name} was made for {what} = {theirs}, this deployment has {ours}",
                remedy="fit a model with these settings: tickcast fit",
            )


def install_models(serving: Serving, digests: Sequence[str]) -> None:
    """Install the models that a state of the engine names, from the registry's files; BadStore where one is gone."""
    ladder = serving.ladder
    if ladder is None:
        return
    here = {card.digest for card in ladder.cards}
    for digest in [digest for digest in digests if digest not in here]:
        try:
            folder = Artefacts(artefact_folder(serving.settings)).open(digest)
            serving.engine.install(open_model(folder, tile=serving.settings.inference.tile))
        except (BadModel, BadRequest) as problem:
            raise BadStore(f"the state was made with a model that cannot be opened: {problem}") from None


def _calendar(settings: Settings) -> ClosedTime:
    name = settings.bars.calendar
    if name == "24x7":
        return ALWAYS_OPEN
    try:
        text = Path(name).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise BadSettings(f"bars.calendar {name} cannot be read: {error}", remedy="see docs/bars.md") from None
    return parse_calendar(text, name=name, every_ns=settings.bars.every_ms * 10**6)


def _adjustments(settings: Settings) -> Adjustments | None:
    """The file of splits, by symbol and time."""
    path = settings.bars.adjustments
    if path is None:
        return None
    import polars as pl  # a daemon without splits does not load it

    try:
        frame = pl.read_parquet(path) if path.suffix == ".parquet" else pl.read_csv(path, try_parse_dates=True)
        frame = frame.select("symbol", pl.col("ts"), pl.col("factor").cast(pl.Float64)).sort("symbol", "ts")
    except (OSError, pl.exceptions.PolarsError) as error:
        raise BadData(
            f"bars.adjustments {path} cannot be read: {error}", remedy="it needs the columns symbol, ts and factor"
        ) from None
    ts = frame["ts"]
    ns = ts.to_numpy() if ts.dtype.is_integer() else ts.cast(pl.Datetime("ns")).to_physical().to_numpy()
    factor = frame["factor"].to_numpy()
    if not (np.isfinite(factor) & (factor > 0)).all():
        raise BadData(f"bars.adjustments {path}: every factor must be a positive number")
    return Adjustments(frame["symbol"].to_list(), ns.astype(np.int64), factor)
