"""The accuracy tables of docs/models.md, written from benchmarks/results/accuracy between two marks of the page.

    python benchmarks/accuracy_tables.py

It measures nothing.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean

from accuracy_cases import CRYPTO, CRYPTO_HORIZON, PAPERS, SETTINGS, Key
from accuracy_data import FOLDS
from accuracy_results import Row, all_cases, choose, chosen_rows, current
from tickcast.figures import skill
from tickcast.io.jobs.orders import RATE

PAGE = Path(__file__).parents[1] / "docs" / "models.md"
BEGIN, END = "<!-- accuracy: begin -->\n", "<!-- accuracy: end -->\n"
TITLES = {"ettm2": "ETTm2", "exchange": "Exchange"}


def render(folder: Path | None = None) -> str:
    parts = [*_literature(folder), *_settings(folder), *_crypto(folder)]
    return "\n".join(parts) + "\n"


def written_into(page: str, tables: str) -> str:
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{tables}{END}{after}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return [*(f"| {' | '.join(line)} |" for line in lines), ""]


def _literature(folder: Path | None) -> list[str]:
    keys = list(SETTINGS)
    by_model = {key: chosen_rows(f"{key[0]}-{key[1]}", folder) for key in keys}
    models = sorted({model for rows in by_model.values() for model in rows}, key=lambda model: _rank(model, by_model))
    lines = [[f"`{model}`", *(_errors(by_model[key].get(model, [])) for key in keys)] for model in models]
    lines.append(["last value", *(_last(by_model[key]) for key in keys)])
    for model in ("nhits", "nlinear"):
        lines.append([f"{model}, as its paper reports it", *(_paper(PAPERS.get(key, {}), model) for key in keys)])
    return [
        "MSE / MAE of every test window, standardised; the mean over seeds, their number in brackets if above 1.",
        "",
        *table(["model", *(f"{TITLES[data]} {horizon}" for data, horizon in keys)], lines),
    ]


def _rank(model: str, by_model: dict[Key, dict[str, list[Row]]]) -> tuple[int, float]:
    """Those with most columns first, then by the first column that they have."""
    found = [rows[model] for rows in by_model.values() if model in rows]
    return -len(found), fmean(row.mse for row in found[0])


def _errors(rows: list[Row]) -> str:
    if not rows:
        return ""
    seeds = f" ({len(rows)})" if len(rows) > 1 else ""
    return f"{fmean(row.mse for row in rows):.3f} / {fmean(row.mae for row in rows):.3f}{seeds}"


def _last(by_model: dict[str, list[Row]]) -> str:
    row = next((row for rows in by_model.values() for row in rows), None)
    return f"{row.mse_naive:.3f} / {row.mae_naive:.3f}" if row else ""


def _paper(reported: dict[str, tuple[float, float | None]], model: str) -> str:
    if model not in reported:
        return ""
    mse, mae = reported[model]
    return f"{mse:.3f}" if mae is None else f"{mse:.3f} / {mae:.3f}"


def _settings(folder: Path | None) -> list[str]:
    """Every setting that was tried, and what it was chosen by."""
    chosen, cases, lines = choose(folder), all_cases(folder), []
    for key, own in SETTINGS.items():
        rows = {(row.model, row.setting): row for row in current(f"{key[0]}-{key[1]}", cases, folder) if row.seed == 1}
        for model in own:
            tried = [rows[model, setting] for setting in own[model] if (model, setting) in rows]
            lines += [
                [
                    f"{TITLES[key[0]]} {key[1]}", f"`{model}`", _spelled(row), f"{row.validation_mse:.4f}",
                    f"{row.epochs}", "yes" if row.setting == chosen[key, model] else "",
                ]
                for row in tried
            ]  # fmt: skip
    return [
        "Settings that were tried, all of them; the lowest error on the validation part chose, not the test part:",
        "",
        *table(["series", "model", "setting", "validation MSE", "epochs", "chosen"], lines),
    ]


def _spelled(row: Row) -> str:
    said = {"context": row.lookback, **row.order.get("model_params", {}), "rate": row.order.get("learning_rate", RATE)}
    return ", ".join(f"{name} {value}" for name, value in said.items())


def _crypto(folder: Path | None) -> list[str]:
    found = chosen_rows(f"{CRYPTO}-{CRYPTO_HORIZON}", folder)
    by_model = {model: rows for model, rows in found.items() if len(rows) == FOLDS}
    best_first = sorted(by_model, key=lambda model: _skill(by_model[model]), reverse=True)
    if not by_model:
        return []
    windows = max(sum(row.windows for row in rows) for rows in by_model.values())
    head = ["model", "skill", "by fold", "MAE / last value's", "coverage of 90 %", "weights", "us per forecast"]
    return [
        f"Hourly closes of 27 crypto pairs, context 96, horizon {CRYPTO_HORIZON}, {windows:,} test windows in {FOLDS}",
        "folds of 80 days in a row. Skill is 1 - pinball / pinball of last value with the widths of a random walk, not",
        "calibrated: so it was when these were measured. What `fit` and `evaluate` call skill has a calibrated one,",
        "and is smaller by what the wrong shape cost this one:",
        "",
        *table(head, [_walked(model, by_model[model]) for model in best_first]),
    ]


def _walked(model: str, rows: list[Row]) -> list[str]:
    return [
        f"`{model}`",
        f"{_skill(rows):+.2%}",
        " ".join(f"{_skill([row]):+.1%}" for row in rows),
        f"{fmean(row.mae for row in rows) / fmean(row.mae_naive for row in rows):.4f}",
        f"{fmean(row.coverage for row in rows):.1%}",
        f"{rows[0].parameters:,}" if rows[0].parameters else "",
        f"{min(row.cost_us for row in rows):.1f}",
    ]


def _skill(rows: list[Row]) -> float:
    return float(skill(fmean(row.pinball for row in rows), fmean(row.pinball_naive for row in rows)))


if __name__ == "__main__":
    PAGE.write_text(written_into(PAGE.read_text(encoding="utf-8"), render()), encoding="utf-8")
