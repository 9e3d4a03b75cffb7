"""What a store grows by in a day, from the settings alone. It measures nothing: a test holds it against real files."""

from typing import NamedTuple

from tickcast.settings import Settings

DAY_S = 86_400
BAR_BYTES = 45  # in the closed file, compressed; with prices that never repeat it is 40
FORECAST_BYTES = 60  # without its quantiles
SCORE_BYTES = 50  # without its steps
QUANTILE_BYTES = 4  # FLOAT: noise does not compress
STEP_BYTES = 20.5  # actual, point, pinball, loss, loss_naive, covered
ASSUMED_BARS_PER_S = 1.0  # of one symbol, where bars follow the ticks


class DayBytes(NamedTuple):
    bars: int
    forecasts: int
    scores: int

    @property
    def total(self) -> int:
        return self.bars + self.forecasts + self.scores


def estimate_bytes_per_day(settings: Settings, symbols: int, *, bars_per_s: float | None = None) -> DayBytes:
    """Bytes on disk if every symbol closes every bar. `bars_per_s` is of one symbol."""
    store, forecast = settings.store, settings.forecast
    if bars_per_s is None:
        bars_per_s = 1000 / settings.bars.every_ms if settings.bars.kind == "time" else ASSUMED_BARS_PER_S
    bars = symbols * bars_per_s * DAY_S
    share = {"all": 1.0, "sample": 1 / store.sample_every, "none": 0.0}[store.forecasts]
    asked = 0.0 if settings.model.default == "none" else bars / forecast.every_bars * share
    return DayBytes(
        bars=round(bars * BAR_BYTES) if store.bars == "all" else 0,
        forecasts=round(asked * (FORECAST_BYTES + QUANTILE_BYTES * forecast.horizon * len(forecast.quantiles))),
        scores=round(asked * (SCORE_BYTES + STEP_BYTES * len(settings.scored_horizons()))),
    )
