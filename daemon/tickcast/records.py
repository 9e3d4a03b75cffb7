"""What crosses a boundary one at a time: commands, replies, health, model cards. Frozen; they do nothing."""

import hashlib
from typing import Any, Literal, get_args

import msgspec


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=False):
    """Every record that leaves the process carries the version of its schema."""


class Command(Record, frozen=True):
    """An order that enters the stream of ticks as a barrier: all that came before is answered first."""

    id: str
    command: str
    args: dict[str, Any] = {}


class Reply(Record, frozen=True):
    """What came of a command: one with `final`, and before it, where a job was begun, one without."""

    id: str
    command: str
    ok: bool
    final: bool = True
    result: dict[str, Any] = {}
    error_code: str = ""
    error: str = ""
    served_by: str = ""  # `<group>/<slot>`
    elapsed_ms: float = 0.0  # since the command was received
    schema: int = 1


class CommandRow(Record, frozen=True):
    """A row of the table `commands`, which is inbox, list of used ids and audit in one."""

    id: str
    audience: str
    key: str  # whose
    role: str  # of that key, then
    command: str
    args_json: str
    digest: str  # SHA-256 of the text that was signed
    received_ns: int
    state: Literal["received", "done"] = "received"
    reply_json: str = ""  # the final Reply, once done
    done_ns: int = 0


class FeatureSpec(Record, frozen=True):
    """One feature channel: which plugin made it, with which parameters, and how the model scales it."""

    name: str
    kind: str
    version: int
    params: dict[str, Any] = {}
    normalization: Literal["none", "zscore", "minmax", "robust", "log"] = "none"


class ModelCard(Record, frozen=True):
    """All that a deployment must know of a model before it may serve. `digest` covers card and artefacts."""

    name: str
    kind: str
    version: str
    digest: str
    framework: str
    bars: dict[str, Any]
    transform: str
    lookback: int
    horizon: int
    levels: list[float]
    features: list[FeatureSpec]
    future: list[str] = []
    labels: list[str] = []  # of the classes that it answers in beside the quantiles; empty = it has none
    symbols: list[str] = []  # of which it knows something of their own; empty = it takes all alike
    need_bars: int = 0  # bars a symbol must have before this model may answer for it
    parameters: int = 0
    model_params: dict[str, Any] = {}
    trained_from_ns: int = 0
    trained_to_ns: int = 0
    dataset_hash: str = ""
    seed: int = 0
    cost_us: float = 0.0  # measured cost per forecast
    metrics: dict[str, Any] = {}
    artefacts: dict[str, str] = {}  # file name -> SHA-256
    created_ns: int = 0
    tags: list[str] = []
    description: str = ""
    parent: str = ""  # digest of the model whose weights it started from
    code_version: str = ""  # of the tickcast that fitted it
    settings_digest: str = ""  # of the settings that steered the fit
    export_path: str = ""  # how its graph came to be
    scale: str = "rms"  # window.scale: what its windows are measured in
    last_value: list[list[float]] = []  # [step, level] its quantiles in one-bar moves, calibrated as the model's were
    schema: int = 1


def digest(card: ModelCard) -> str:
    """SHA-256 over all of the card but the digest itself; the card's artefact hashes tie the weights to it.

    What is left at its default is left out, so that a field which is added later changes no digest.
    """
    said = {
        field.name: value
        for field in msgspec.structs.fields(card)
        if field.name != "digest" and (value := getattr(card, field.name)) != field_default(field)
    }
    return hashlib.sha256(msgspec.json.encode(said, order="sorted")).hexdigest()


def field_default(field: msgspec.structs.FieldInfo) -> Any:
    """NODEFAULT where there is none."""
    return field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()


class JobEvent(Record, frozen=True):
    """What became of a job, published on `jobs`: each change of its state, and its progress at most once a second."""

    job: str
    kind: str
    state: str
    step: int
    steps: int
    figures: dict[str, Any]  # the last ones that the job reported
    detail: str  # why it ended, where that needs saying
    at_ns: int
    schema: int = 1


JobState = Literal["queued", "running", "done", "failed", "cancelled", "interrupted"]


class JobRow(Record, frozen=True):
    """A job as the store keeps it. `why` is a stable code, empty for one that is done; docs/jobs.md lists them."""

    id: str
    kind: str  # train, evaluate, backtest, optimize, auto
    command_id: str
    state: JobState
    why: str
    order_json: str
    created_ns: int
    started_ns: int = 0
    ended_ns: int = 0
    step: int = 0
    steps: int = 0
    result_json: str = ""  # job_folder.Result


class TrialRow(Record, frozen=True):
    """One trial of an `optimize` job, as a line of its `trials.jsonl` and as the store keeps it."""

    job: str
    number: int  # 0 = the parameters that the order itself gives: the model's defaults
    state: Literal["complete", "pruned", "failed"]
    params: dict[str, Any]
    value: float | None  # the metric over the validation part; of a pruned one its last epoch's loss
    epochs: int
    seconds: float
    why: str = ""  # of a failed one: a stable code, then a sentence
    origin: str = ""  # the job whose search found these parameters, where they did not come from this one


Window = Literal["minute", "hour", "day", "rolling", "all"]
WINDOWS: tuple[Window, ...] = get_args(Window)


class IntervalFigures(Record, frozen=True):
    """Of the interval between two levels; its ends belong to it. Of labels whose window moved."""

    coverage: float
    coverage_low: float  # of its interval
    coverage_high: float
    width: float  # as winkler, in one-bar moves
    winkler: float


class Accuracy(Record, frozen=True):
    """Figures of one (model, group, horizon) in a window, naive beside each; NaN where too few blocks tell."""

    model: str
    version: str
    group: str
    horizon: int
    window: Window
    n: int
    void: int
    pending: int
    mae: float
    mae_naive: float
    mae_pct: float
    rmse: float
    rmse_pct: float
    mape: float
    smape: float
    r2: float
    r2_returns: float
    pinball: float  # as crps, in one-bar moves
    pinball_naive: float
    crps: float
    coverage: dict[str, float]
    width: float
    directional: float
    directional_base: float
    calibration: float
    skill: float  # 1 - pinball / pinball_naive
    skill_mae: float  # the same of absolute errors in one-bar moves
    as_of_ns: int
    outside: int  # labels of numbers so large that no sum holds them; in no figure
    blocks: int  # of labels that tell of different moves
    insufficient: bool  # too few blocks: all but the counts is NaN
    mase: float  # MAE / that of last value one bar ahead, in one-bar moves
    directional_low: float  # of its interval
    directional_high: float
    intervals: dict[str, IntervalFigures]  # by what they are to hold
    class_accuracy: float  # share of right classes, as below of the last step of who answers in classes
    class_accuracy_base: float  # that of the class which came most
    log_loss: float
    calibration_error: float  # of the likeliest class
    schema: int = 3


Severity = Literal["warning", "error"]


class Alert(Record, frozen=True):
    """Something that a person must know, published on `alerts`: when it begins, again while it lasts, when it ends."""

    name: str  # one of docs/alerts.md
    subject: str  # what it is about: a partition, a model, a kind of job
    severity: Severity
    event: Literal["raised", "repeated", "ended"]
    detail: str  # the figures
    meaning: str
    remedy: str
    runbook: str  # the place in docs/alerts.md
    first_ns: int  # when it was raised
    last_ns: int  # when it was last known to be so
    ended_ns: int | None
    at_ns: int  # of this record
    raised_by: str  # `<group>/<slot>`
    schema: int = 1


class DriftStream(Record, frozen=True):
    """A stream of a family: what is counted, and how much speaks for its having changed."""

    model: str  # `name@version`; of range and joint, whose reference it is
    group: str
    channel: str  # of range: the feature, or `target`
    named: bool  # by the last alarm
    statistic: float  # evidence, in bars
    share: float  # of the last block
    limit: float  # that was expected of it at most
    block_bars: float
    autocorrelation: float | None  # from block to block, that the reference has left
    psi: float | None
    ks: float | None
    wasserstein: float | None  # in widths of the reference's central 90 %


class Drift(Record, frozen=True):
    """A family of streams in a partition: how much speaks for a change, and whether that is an alarm."""

    family: Literal["coverage", "skill", "range", "joint"]
    topic: str
    partition: int
    state: Literal["quiet", "alarm"]
    event: Literal["", "raised", "ended"]  # what became of the alarm just then; empty = this is how things are
    statistic: float  # mean evidence of the streams, in bars; what raised an alarm, where one was just raised
    threshold: float  # bars between false alarms, at least
    bars: float  # since the evidence last sufficed
    since_ns: int  # event time at which the alarm began or ended; 0 = there was none
    alarms: int  # so far
    watched: int  # streams that have closed a block
    streams: list[DriftStream]  # those that the last alarm named, then those of most evidence
    as_of_ns: int  # of the last evaluation
    schema: int = 1


class DeadLetter(Record, frozen=True):
    """A message that was refused, or had ticks that were. `stage` refused the first: codec, quality or engine."""

    topic: str
    partition: int
    offset: int
    value: bytes  # the original's, or the first kafka.batch_bytes of them with the key's
    original_bytes: int
    reason: str  # of the first refused tick
    stage: str
    refused: int = 1  # ticks; of a message that is none at all, one
    ticks: list[int] = []  # which of the message's ticks were refused, counted from 0: the first 20
    reasons: dict[str, int] = {}  # how many for each
    key: bytes | None = None


class Health(Record, frozen=True):
    """A snapshot of the daemon, published on `health` and shown by `status`."""

    instance: str
    state: str
    uptime_s: float
    consumed: int
    accepted: int
    late: int
    rejected: int
    held: int
    reasons: dict[str, int]
    bars: int
    unasked: int  # questions conflated or skipped under overload
    forecasts: int
    scored: int
    symbols: int
    cold: int
    turns: int
    batch_mean: float
    loop_lag_ms: dict[str, float]  # of the last minute
    latency_ms: dict[str, float]
    loop_lag_life_ms: dict[str, float]  # since the start of the process
    latency_life_ms: dict[str, float]
    store_units_behind: int
    rss_bytes: int
    produced_ns: int
    feature_failures: dict[str, int] = {}  # by plugin: batches in which it failed
    lag_records: int = 0  # that wait in the source
    dropped: dict[str, int] = {}  # messages that gave way to newer ones, by where
    lag_s: float = 0.0  # age of the newest record that was read, while others wait
    partitions: dict[str, str] = {}  # those in trouble, `topic/number`: stopped or late
    commands: dict[str, int] = {}  # by what came of them: done, repeated, or the code of a refusal
    models: dict[str, int] = {}  # loaded beside those of the settings: held now, loads and evictions so far
    fatal: dict[str, int] = {}  # messages that were set aside because the process ended in them, by partition
    store_lacks: dict[str, int] = {}  # committed records whose rows the store has lost for good, by partition
    unanswered: int = 0  # bars since the start whose turn it was, of symbols with too few bars for any model
    fallbacks: int = 0  # forecasts for which another answered, since the model gave nothing usable
    alerts: dict[str, str] = {}  # open ones: name -> severity
    regimes: dict[str, int] = {}  # symbols that are calm, normal and wild now
    schema: int = 3
