"""One fit, from a job folder to a model folder: data, training, widths, export, figures, card. It serves nothing."""

import hashlib
import shutil
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np

import tickcast
from tickcast.batch.judge.against import of_last_value, of_model, terms_against
from tickcast.batch.judge.hold_out import evaluate, last_value_widths
from tickcast.batch.train.analysis import FitOutcome
from tickcast.batch.train.classes import FREQUENCIES, class_figures, usual_classes
from tickcast.batch.train.dataset import Dataset, load_dataset
from tickcast.batch.train.fit_job import FitJob, InTwo, JudgedFit, Parent, completed, read_parent, refuse_unlike
from tickcast.batch.train.parity import check_parity, probe_inputs, write_probe
from tickcast.batch.train.reference import reference_of, with_values_of, write_reference
from tickcast.clock import Clock, SystemClock
from tickcast.columns import F64
from tickcast.engine.inference.load import open_model, read_reference
from tickcast.engine.inference.model_folder import CARD, FRAMEWORK, GRAPH, REFERENCE, verify_strictly
from tickcast.engine.inference.onnx import OnnxRunner
from tickcast.errors import BadModel, BadSettings
from tickcast.io.jobs.folder import CHAMPION, MODEL
from tickcast.io.jobs.orders import TRAINING, FitOrder
from tickcast.plugin import KeepsSums, Model, Net, Report, find
from tickcast.questions import Questions
from tickcast.records import ModelCard, digest
from tickcast.reference import Reference

FINAL = "final"  # within it, too: of the fit on all bars, with checkpoints and a model of its own
OF_FIT = ("start", "fit", "parity")  # of a card's metrics; the rest is of the hold-out
JUDGED = ("version", "trained_from_ns", "trained_to_ns", "dataset_hash")  # what a card tells of whose figures it has
BY_TORCH, BY_ITSELF = "torch.export", "plugin"  # who writes a graph: ModelCard.export_path
COST_ROWS, COST_CALLS = 1024, 11


def run(job_folder: Path, report: Report, *, clock: Clock | None = None) -> dict[str, Any]:
    """Fit what `order.json` asks on `bars.parquet`, from where a run before this one was interrupted.

    Returns the name of the model's folder, which is there whole or not at all, status, metrics and data set. Where a
    contest would follow, a model that the hold-out speaks for does not leave the job: the same on all bars does.
    """
    order = FitOrder.read(job_folder)
    parent, halves = read_parent(job_folder, order), InTwo(report)
    told = report if order.against is None else halves
    job = FitJob(job_folder, completed(order, parent), parent, told, clock or SystemClock())
    dataset = load_dataset(job_folder, job.order, seen_to_ns=job.seen_to_ns)
    card = _made(dataset, job)
    made = _told(card, dataset, MODEL)
    if order.against is None:
        return made
    against = made["against"] = _against(card, dataset, job)
    if not against["terms"]["refusal"]:
        going = made["status"] != "stopped" and halves.go_on()
        made |= _on_all_bars(card, dataset, job) if going else {"status": "stopped"}
        if made["status"] == "stopped":
            against["terms"]["refusal"] = "it was stopped before it was fitted on all bars"
    return made


def _on_all_bars(judged: ModelCard, dataset: Dataset, job: FitJob) -> dict[str, Any]:
    """The same fit once more; nothing of the judged one goes on in it but the figures."""
    final = job._replace(folder=job.folder / FINAL, judged=JudgedFit(job.folder / MODEL, judged))
    final.folder.mkdir(exist_ok=True)
    whole = dataset.without_holdout()
    return _told(_made(whole, final), whole, f"{FINAL}/{MODEL}") | {"judged_dataset": dataset.told()}


def _told(card: ModelCard, dataset: Dataset, folder: str) -> dict[str, Any]:
    return {
        "model": folder, "status": card.metrics["fit"]["status"], "metrics": card.metrics, "dataset": dataset.told()
    }  # fmt: skip


def _made(dataset: Dataset, job: FitJob) -> ModelCard:
    """The card of the model that is in the job's folder then."""
    if (card := _made_before(dataset, job)) is not None:
        return card
    model = build(job.order, dataset)
    figures = _fit(model, dataset, job)
    partial, folder = job.folder / f".{MODEL}", job.folder / MODEL
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    figures["parity"] = _write_model(model, partial)
    card = _finished_card(model, dataset, figures, folder=partial, job=job)
    (partial / CARD).write_bytes(msgspec.json.format(msgspec.json.encode(card)))
    shutil.rmtree(folder, ignore_errors=True)
    partial.replace(folder)
    return card


def _made_before(dataset: Dataset, job: FitJob) -> ModelCard | None:
    """By a run that was interrupted after this fit; one that was stopped is gone on with."""
    try:
        card = verify_strictly(job.folder / MODEL)
    except BadModel:
        return None
    of = (card.settings_digest, card.dataset_hash, card.parent)
    ended = card.metrics["fit"]["status"] != "stopped"
    return card if ended and of == (job.order.digest, dataset.digest, job.parent_digest) else None


def _against(card: ModelCard, dataset: Dataset, job: FitJob) -> dict[str, Any]:
    """The terms of its contest with who serves, and of who serves with last value once it has won."""
    asked = job.order.against
    assert asked is not None
    own, levels = of_model(OnnxRunner(job.folder / MODEL, card).predict), card.levels
    last_value = of_last_value(np.array(card.last_value))
    given = {"alpha": asked.alpha, "most_bars": asked.most_bars}
    lasting = terms_against(own, last_value, dataset, levels, after_ns=0, **given)
    champion, after_ns = last_value, 0
    if asked.champion:
        served = verify_strictly(job.folder / CHAMPION)
        champion, after_ns = of_model(open_model(job.folder / CHAMPION).predict), served.trained_to_ns
    terms = terms_against(champion, own, dataset, levels, after_ns=after_ns, **given)
    return {"terms": terms._asdict(), "last_value": lasting._asdict()}


def build(order: FitOrder, dataset: Dataset) -> Net | Model:
    """An unfitted model of the order's kind, built on its card."""
    card = ModelCard(
        name=order.name or order.kind, kind=order.kind, version="", digest="", framework=FRAMEWORK, bars=order.bars,
        transform=order.transform, lookback=order.lookback, scale=order.scale, horizon=order.horizon,
        levels=order.levels, features=dataset.specs, future=order.future, need_bars=dataset.need_bars,
        model_params=order.model_params, seed=order.seed, created_ns=order.created_ns, dataset_hash=dataset.digest,
        settings_digest=order.digest, code_version=tickcast.__version__, tags=order.tags,
    )  # fmt: skip
    kind = find("models", order.kind)
    if not (hasattr(kind, "module") or hasattr(kind, "fit")):
        raise BadSettings(f"a model of kind '{order.kind}' needs no fit", remedy="name it as model.default")
    try:
        model: Net | Model = kind(card)
    except BadSettings as error:
        raise BadSettings(error.args[0], remedy=_parameters_there_are(order, error.remedy)) from None
    return model


def _parameters_there_are(order: FitOrder, kinds_own: str) -> str:
    """The nearest key of the training first: what is none of its keys was taken for a parameter of the kind."""
    near = [get_close_matches(name, TRAINING, n=1) for name in order.model_params]
    meant = [f"did you mean {found[0]}?" for found in near if found]
    return "; ".join([*meant, kinds_own, f"of the training: {', '.join(TRAINING)}"])


def _is_net(model: Net | Model) -> bool:
    return hasattr(model, "module")


def _fit(model: Net | Model, dataset: Dataset, job: FitJob) -> dict[str, Any]:
    """Fit in place; returns `fit` and, where there was one, `start` of the card's metrics."""
    figures: dict[str, Any] = {"fit": msgspec.to_builtins(FitOutcome())}
    if job.parent is not None and job.parent.start.mode == "partial":
        return {"start": _fit_on(model, dataset, job, job.parent), **figures}
    if _is_net(model):
        from tickcast.batch.train.fit_net import fit_net

        return fit_net(model, dataset, job)  # type: ignore[arg-type]
    if job.parent is not None:
        remedy = "set start.mode = partial" if hasattr(model, "go_on") else "fit it without start"
        raise BadSettings(f"start: a model of kind '{job.order.kind}' fits itself", remedy=remedy)
    model.fit(dataset, job.report)  # type: ignore[union-attr]
    return figures


def _fit_on(model: Net | Model, dataset: Dataset, job: FitJob, parent: Parent) -> dict[str, Any]:
    """Add to what the parent has counted what it has not."""
    if not hasattr(model, "go_on"):
        remedy = "set start.mode = warm or finetune" if _is_net(model) else "fit it without start"
        raise BadSettings(f"start: a model of kind '{job.order.kind}' keeps no sums to add to", remedy=remedy)
    counting = cast(KeepsSums, model)
    refuse_unlike(model.card, parent, remedy="fit without start", also=("bars",))
    counting.go_on(parent.folder)
    counting.fit(dataset, job.report)
    return {"mode": parent.start.mode, "parent": parent.card.digest, **counting.counted()}


def _write_model(model: Net | Model, folder: Path) -> float:
    """All files but the card; returns how far graph and fit differ."""
    model.save(folder)
    if _is_net(model):
        from tickcast.batch.train.fit_net import write_graphs

        write_graphs(model, folder)  # type: ignore[arg-type]
    parity = check_parity(model, folder)
    write_probe(model, folder)
    return parity


def _finished_card(
    model: Net | Model, dataset: Dataset, figures: dict[str, Any], *, folder: Path, job: FitJob
) -> ModelCard:
    runner = OnnxRunner(folder, model.card)
    last_value = last_value_widths(dataset, dataset.parts.calibration, model.card.levels)
    holdout, reference = _judgement(runner, last_value, dataset, job)
    write_reference(folder, reference)
    artefacts = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.iterdir())}
    trained_from_ns, trained_to_ns = job.with_parents_span(*dataset.span_used())
    card = msgspec.structs.replace(
        model.card, version=artefacts[GRAPH][:12], metrics={**holdout, **figures}, artefacts=artefacts,
        parameters=_parameters(model),
        cost_us=cost_us(runner, job.clock), trained_from_ns=trained_from_ns, trained_to_ns=trained_to_ns,
        last_value=[[float(f"{width:.6g}") for width in step] for step in last_value.tolist()],
        parent=job.parent_digest, export_path=BY_TORCH if _is_net(model) else BY_ITSELF,
    )  # fmt: skip
    return msgspec.structs.replace(card, digest=digest(card))


def _judgement(
    runner: OnnxRunner, last_value: F64, dataset: Dataset, job: FitJob
) -> tuple[dict[str, Any], Reference]:  # fmt: skip
    """What the hold-out says; where none is left, what it said of the same before, and whose figures these are."""
    card, per_bar = runner.card, job.order.bars.get("kind") == "time"
    if job.judged is None:
        rows = dataset.parts.holdout
        found = evaluate(runner.predict, last_value, dataset, rows, card.levels)
        if card.labels:
            found["classes"] = class_figures(runner, dataset, rows)
        return found, reference_of(dataset, runner.predict, last_value, card.levels, per_bar=per_bar)
    judged = job.judged.card
    found = {name: figure for name, figure in judged.metrics.items() if name not in OF_FIT}
    found["judged"] = {name: getattr(judged, name) for name in JUDGED} | {"fit": judged.metrics["fit"]}
    if card.labels:
        found["classes"] |= {FREQUENCIES: usual_classes(dataset, card).round(6).tolist()}
    before = read_reference(job.judged.folder / REFERENCE, channels=1 + len(card.features))
    return found, with_values_of(dataset, before, per_bar=per_bar)


def _parameters(model: Net | Model) -> int:
    """Of a net those of its module; what fits itself tells them on its card."""
    return sum(p.numel() for p in model.module().parameters()) if _is_net(model) else model.card.parameters  # type: ignore[union-attr]


def cost_us(runner: OnnxRunner, clock: Clock) -> float:
    """Median cost of one forecast in a busy batch."""
    questions = Questions.of(probe_inputs(runner.card, COST_ROWS, seed=0))
    taken = []
    for _ in range(COST_CALLS):
        began_ns = clock.monotonic_ns()
        runner.answer(questions)
        taken.append(clock.monotonic_ns() - began_ns)
    return float(np.median(taken)) / COST_ROWS / 1e3
