"""Which fits the accuracy tables are made of, the most telling first, and what the papers report. It runs none.

Where a model has several settings, all are fitted with the first seed; the one with the lowest error on the validation
part is fitted with the other seeds too and shown beside other models (`accuracy_results.choose`).
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from accuracy_data import FOLDS
from tickcast.io.jobs.orders import FitOrder

CRYPTO = "crypto_1h"
CRYPTO_HORIZON = 12
REPEAT_LAST = "repeat-last"
SEEDS = (1, 2, 3)
Fields = dict[str, Any]
Key = tuple[str, int]  # data, horizon

# (data, horizon) -> model -> (MSE, MAE) as its paper reports it; None where it does not
PAPERS: dict[Key, dict[str, tuple[float, float | None]]] = {
    ("ettm2", 96): {"nhits": (0.176, 0.255), "nlinear": (0.167, 0.255), REPEAT_LAST: (0.266, 0.328)},
    ("ettm2", 720): {"nhits": (0.401, 0.413), "nlinear": (0.368, 0.384), REPEAT_LAST: (0.521, 0.465)},
    ("exchange", 96): {"nhits": (0.092, None), "nlinear": (0.089, None), REPEAT_LAST: (0.081, None)},
}
NHITS_BARS = {key: PAPERS[key]["nhits"][0] * 1.03 for key in PAPERS}  # ours: within 3 % or better

LONG: Fields = {"batch_size": 512, "epochs": 10, "windows_per_epoch": 40_000}
SHORT: Fields = {"batch_size": 256, "epochs": 5, "windows_per_epoch": 51_200}  # 1,000 steps
FINE, COARSE = {"hidden": 256}, {"hidden": 256, "pooling": [16, 8, 1]}
FAR = {"hidden": 256, "pooling": [8, 4, 1], "downsample": [96, 24, 4]}
CALM = {"hidden": 64, "pooling": [8, 4, 1], "downsample": [24, 12, 4]}
CALM_FAR = {"hidden": 64, "pooling": [8, 4, 1], "downsample": [180, 60, 12]}
LINEAR: dict[str, dict[str, Fields]] = {
    "nlinear": {"slow": LONG | {"lookback": 336, "learning_rate": 1e-4}, "fast": LONG | {"lookback": 336}},
    "dlinear": {"fast": LONG | {"lookback": 336}, "slow": LONG | {"lookback": 336, "learning_rate": 1e-4}},
}
# (data, horizon) -> model -> name of a setting -> fields of its order
SETTINGS: dict[Key, dict[str, dict[str, Fields]]] = {
    ("ettm2", 96): {
        "nhits": {
            "480": LONG | {"lookback": 480, "model_params": FINE},
            "480-coarse": LONG | {"lookback": 480, "model_params": COARSE},
            "960-coarse": LONG | {"lookback": 960, "model_params": COARSE},
        },
        **LINEAR,
    },
    ("exchange", 96): {
        "nhits": {
            "96": LONG | {"lookback": 96, "model_params": CALM, "learning_rate": 3e-4},
            "192": LONG | {"lookback": 192, "model_params": CALM, "learning_rate": 3e-4},
            "480": LONG | {"lookback": 480, "model_params": CALM, "learning_rate": 3e-4},
        },
        **LINEAR,
    },
    ("ettm2", 720): {
        "nhits": {
            "720": LONG | {"lookback": 720, "model_params": FAR},
            "1440": LONG | {"lookback": 1440, "model_params": FAR},
            "480": LONG | {"lookback": 480, "model_params": FAR},
        },
        **LINEAR,
    },
    ("exchange", 720): {
        "nhits": {
            "96": LONG | {"lookback": 96, "model_params": CALM_FAR, "learning_rate": 3e-4},
            "336": LONG | {"lookback": 336, "model_params": CALM_FAR, "learning_rate": 3e-4},
        },
        **LINEAR,
    },
}
SEEDED = ("nhits", "nlinear", "dlinear")
OTHERS: dict[str, Fields] = {  # at horizon 96, one seed, one setting
    "nbeats": SHORT | {"lookback": 480},
    "transformer": SHORT | {"lookback": 480, "model_params": {"patch": 16}},
    "ets": {"lookback": 480},
    **{kind: SHORT | {"lookback": 96} for kind in ("gru", "lstm", "lstm_attention", "tcn", "tft")},
}  # deepar forecasts 48 bars at most
MEMBERS = ("nhits", "nbeats", "nlinear")  # of the ensemble at horizon 96, each in its first setting
ENSEMBLE: Fields = {"lookback": 480, "model_params": {"method": "stacked"}}
NETS = (
    "nhits", "nlinear", "dlinear", "micro", "nbeats", "gru", "lstm", "tcn", "lstm_attention", "transformer", "deepar",
    "tft",
)  # fmt: skip
CLASSICAL = (
    "ridge", "ets", "theta", "kalman", "ar", "gradient_boosting", "lasso", "elasticnet", "arima", "prophet_like",
    "decision_tree", "random_forest", "bagging", "svr",
)  # fmt: skip


class Case(NamedTuple):
    """One fit: an order on a set of series."""

    data: str
    horizon: int
    model: str
    setting: str
    seed: int
    fold: int  # of the walk forward; 0 = the literature's split
    order: FitOrder  # of a combination: without its members' digests, which their fits decide
    members: tuple["Case", ...] = ()

    @property
    def table(self) -> str:
        return f"{self.data}-{self.horizon}"

    @property
    def name(self) -> str:
        place = f"fold {self.fold}" if self.fold else f"seed {self.seed}"
        return " ".join(part for part in (self.table, self.model, self.setting, place) if part)


def first_cases() -> list[Case]:
    """In the order in which they are worth having; all settings, with the first seed."""
    tried = [(key, model, list(own[model])) for key, own in SETTINGS.items() for model in SEEDED]
    first = [(key, model, settings[0]) for key, model, settings in tried]
    rest = [(key, model, setting) for key, model, settings in tried for setting in settings[1:]]
    others = [_other(data, model) for data in ("ettm2", "exchange") for model in OTHERS]
    plain, tuned = ([_paper(*item, seed=SEEDS[0]) for item in part] for part in (first, rest))
    return [*plain, *others, *map(_ensemble, ("ettm2", "exchange")), *_walk_forward(), *tuned]


def seeded_cases(chosen: Mapping[tuple[Key, str], str]) -> list[Case]:
    """The chosen setting of each (data and horizon, model) with the other seeds."""
    return [_paper(key, model, setting, seed=seed) for seed in SEEDS[1:] for (key, model), setting in chosen.items()]


def _paper(key: Key, model: str, setting: str, *, seed: int) -> Case:
    return Case(*key, model, setting, seed, 0, _paper_order(key[1], model, seed, SETTINGS[key][model][setting]))


def _other(data: str, model: str) -> Case:
    fields = OTHERS[model]
    if model == "ets":
        fields = fields | ({"model_params": {"season_bars": 96}} if data == "ettm2" else {"lookback": 96})
    return Case(data, 96, model, "", SEEDS[0], 0, _paper_order(96, model, SEEDS[0], fields))


def _ensemble(data: str) -> Case:
    first = {model: next(iter(settings)) for model, settings in SETTINGS[data, 96].items()}
    members = (
        _paper((data, 96), model, first[model], seed=SEEDS[0]) if model in first else _other(data, model)
        for model in MEMBERS
    )
    order = _paper_order(96, "ensemble", SEEDS[0], ENSEMBLE)
    return Case(data, 96, "ensemble", "", SEEDS[0], 0, order, tuple(members))


def _paper_order(horizon: int, model: str, seed: int, fields: Fields) -> FitOrder:
    return FitOrder(
        kind=model, split="paper", transform="level", horizon=horizon, seed=seed, time_budget_s=3600, **fields
    )


def _walk_forward() -> Iterator[Case]:
    bars = {"kind": "time", "every_ms": 3_600_000}
    for model in (*NETS, *CLASSICAL):
        fields = (SHORT | ({"loss": "nll"} if model == "deepar" else {})) if model in NETS else {}
        for fold in range(1, FOLDS + 1):
            order = FitOrder(
                kind=model, bars=bars, lookback=96, horizon=CRYPTO_HORIZON, seed=1, time_budget_s=3600, **fields
            )
            yield Case(CRYPTO, CRYPTO_HORIZON, model, "", 1, fold, order)
