"""What can go wrong, drawn as one tree; each class has one fate and one stable code. It never handles anything.

TickcastError
├── Refusal            fate: refuse to start, exit 78
│   ├── BadSettings        a setting is unknown, malformed or contradicts another
│   ├── BadModel           a model folder is missing, damaged, or does not fit this deployment
│   ├── BadStore           the store is held elsewhere, damaged, or from a newer schema
│   ├── MissingPackage     what was asked for needs a package that is missing, or is not the one we know
│   ├── BadData            a data file is missing, empty, truncated or lacks a column
│   ├── BadBroker          a broker refuses us at start: TLS, password, rights, a missing topic
│   └── BadPositions       the committed positions do not fit this deployment, or the broker lost what follows them
├── Skipped            fate: count it, answer or dead-letter it, go on
│   ├── BadRequest         a command or query that cannot be carried out
│   │   ├── Refused            one of several faults, whose code it has
│   │   │   ├── CommandRefused     a command that is not let in or did not end; its code is a CommandFault
│   │   │   ├── ModelRefused       no such model, or it cannot go where it is wanted; its code is a ModelFault
│   │   │   └── JobRefused         no such job, or it is not in the state for that; its code is a JobFault
│   │   └── JobFailed          a job ended without what it was to bring; its code is the job's own
│   └── BadOutput          a model or plugin gave something unusable
├── Waiting            fate: retry with backoff, up to runtime.max_wait_s
│   ├── StoreStalled       the store does not take what is given to it (disk full, I/O error)
│   └── BrokerAway         no broker answers, or it refuses for too long what it allowed before
└── Fatal              fate: die; systemd restarts, and start-up is recovery
    ├── EngineFailed       the engine thread raised: its state can no longer be trusted
    ├── TransactionLost    what was published may be incomplete: only recovery knows
    ├── NoProgress         the client stood still although there was something to read
    └── Fenced             exit 75, not restarted: another daemon has taken this slot
"""

from enum import IntEnum, IntFlag, StrEnum

EXIT_OK, EXIT_DIED, EXIT_UNFINISHED, EXIT_FENCED, EXIT_REFUSED, EXIT_SECOND_SIGNAL = 0, 1, 3, 75, 78, 130


class TickcastError(Exception):
    """`code` is stable and machine-readable; `remedy` says what the reader can do about it."""

    code = "error"
    exit_code = EXIT_DIED

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.remedy = remedy

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message} ({self.remedy})" if self.remedy else message


class Refusal(TickcastError):
    code = "refused"
    exit_code = EXIT_REFUSED


class BadSettings(Refusal):
    code = "invalid_config"


class BadModel(Refusal):
    code = "bad_model"


class BadStore(Refusal):
    code = "bad_store"


class MissingPackage(Refusal):
    code = "missing_package"


class BadData(Refusal):
    code = "bad_data"


class BadBroker(Refusal):
    code = "bad_broker"


class BadPositions(Refusal):
    code = "bad_positions"


class Skipped(TickcastError):
    code = "skipped"


class BadRequest(Skipped):
    code = "bad_request"


class CommandFault(StrEnum):
    """Why a command has no result, in the order in which it is looked at."""

    OVERSIZED = "oversized"
    MALFORMED = "malformed"
    UNKNOWN_KEY = "unknown_key"
    BAD_SIGNATURE = "bad_signature"
    WRONG_AUDIENCE = "wrong_audience"
    STALE = "stale"
    UNKNOWN_COMMAND = "unknown_command"
    ROLE_TOO_LOW = "role_too_low"
    BAD_ARGUMENT = "bad_argument"
    TOO_MANY = "too_many"
    REPLAYED = "replayed"
    # let in, but
    TIMED_OUT = "timed_out"
    INTERRUPTED = "interrupted"
    ANSWER_TOO_LARGE = "answer_too_large"
    FAILED = "failed"


class Refused(BadRequest):
    code = "request_refused"

    def __init__(self, fault: StrEnum, message: str, *, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.code = fault.value


class CommandRefused(Refused):
    code = "command_refused"


class ModelFault(StrEnum):
    """Why the registry does not do what it is asked."""

    UNKNOWN_MODEL = "unknown_model"
    AMBIGUOUS_MODEL = "ambiguous_model"
    RETIRED_MODEL = "retired_model"
    BAD_NAME = "bad_name"
    BAD_ROUTE = "bad_route"
    ALREADY_ACTIVE = "already_active"
    NOTHING_TO_ROLL_BACK = "nothing_to_roll_back"
    NO_EVIDENCE = "no_evidence"
    TOO_COSTLY = "too_costly"
    BAD_MODEL_RECORD = "bad_model_record"


class ModelRefused(Refused):
    code = "model_refused"


class JobFault(StrEnum):
    """Why nothing is done about a job."""

    UNKNOWN_JOB = "unknown_job"
    NOT_RUNNING = "not_running"
    NOT_RESUMABLE = "not_resumable"


class JobRefused(Refused):
    code = "job_refused"


class JobFailed(BadRequest):
    code = "job_failed"

    def __init__(self, why: str, message: str) -> None:
        super().__init__(message, remedy="docs/jobs.md says what its code means; the job's folder has its output")
        self.code = why or self.code


class BadOutput(Skipped):
    code = "bad_output"


class Waiting(TickcastError):
    code = "waiting"


class StoreStalled(Waiting):
    code = "store_stalled"


class BrokerAway(Waiting):
    code = "broker_away"


class Fatal(TickcastError):
    code = "fatal"


class EngineFailed(Fatal):
    code = "engine_failed"


class TransactionLost(Fatal):
    code = "transaction_lost"


class NoProgress(Fatal):
    code = "no_progress"


class Fenced(Fatal):
    code = "fenced"
    exit_code = EXIT_FENCED


class Reason(IntEnum):
    """Why a message or tick did not enter a window. Kernels use the number, everything else the name."""

    ACCEPTED = 0
    # the codec's
    EMPTY = 1
    MALFORMED = 2
    MISSING_FIELD = 3
    BAD_NUMBER = 4
    BAD_TIME = 5
    BAD_SYMBOL = 6
    SYMBOL_LIMIT = 7
    TOO_LARGE = 8
    OTHER_EVENT = 9  # a well-formed message of the feed that is no tick: counted, never a dead letter
    CORRUPT = 10  # a batch of records whose checksum, compression or framing is broken
    TOMBSTONE = 11  # a record whose value is null, as compacted topics have them: counted, never a dead letter
    SYMBOL_RATE = 12  # a place could be taken over, but too many were within this minute
    # quality's
    LATE = 20
    HELD = 21
    NON_FINITE = 22
    NON_POSITIVE = 23
    NEGATIVE_SIZE = 24
    WRONG_UNIT = 25
    FUTURE = 26
    ANCIENT = 27
    JUMP = 28
    OUTLIER = 29
    CROSSED = 30
    DUPLICATE = 31
    MARKET_CLOSED = 32
    SYMBOL_IN_TWO_PARTITIONS = 33
    # the engine's
    FATAL = 50  # the process ended in it time and again


REASON_COUNT = 64  # size of the arrays that kernels count reasons in


class Quality(IntFlag):
    """What a reader of a forecast should know about it."""

    FALLBACK = 1  # the model's output was unusable: the one before it answered, or last value
    ADAPTIVE_COLD = 2  # too few labels yet to move the quantiles
    IN_SAMPLE = 4  # the model was trained on this span
    CORRECTED = 8  # by what its points were off of late
