"""Connects to Kafka with every default stated, and says in our own words what is wrong. It moves no record."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka import errors as kafka_errors
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.conn import create_conn
from aiokafka.structs import OffsetAndMetadata

from tickcast.columns import Source
from tickcast.errors import BadBroker, BadSettings, BrokerAway, Fenced, TickcastError, TransactionLost
from tickcast.io.kafka import known_client
from tickcast.settings.buses import KafkaSecurity, KafkaSettings

CLIENT = "tickcast"
REQUEST_MS = 20_000
PRODUCE_MS = 60_000  # a batch that the broker has not taken by then is lost, and with it the unit
BACKOFF_MS = 20  # between a transaction's steps; the client's own 100 ms would be most of a commit
METADATA_MS = 30_000  # how soon new partitions are seen
FETCH_WAIT_MS = 100
PRODUCE_BYTES = 8 << 20  # one request over all partitions of a node
GATHERED_BYTES = 16 << 10  # of single messages that wait to be sent: one batch; the client's own default
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 5.0

NO_RIGHTS = (
    kafka_errors.TopicAuthorizationFailedError, kafka_errors.GroupAuthorizationFailedError,
    kafka_errors.TransactionalIdAuthorizationFailed, kafka_errors.ClusterAuthorizationFailedError,
)  # fmt: skip
FENCED = (
    kafka_errors.ProducerFenced, kafka_errors.InvalidProducerEpoch, kafka_errors.TransactionCoordinatorFenced,
)  # fmt: skip

# KafkaError is a RuntimeError, and so is what uvloop says of a connection that was cut meanwhile.
FAILURES = (TimeoutError, RuntimeError, kafka_errors.IllegalOperation)

NOT_YET = (
    kafka_errors.GroupCoordinatorNotAvailableError, kafka_errors.NotCoordinatorForGroupError,
    kafka_errors.GroupLoadInProgressError, kafka_errors.NodeNotReadyError,
)  # fmt: skip


class Committed(NamedTuple):
    offset: int
    note: dict[str, Any]  # what the committer wrote beside it


def security(settings: KafkaSecurity) -> dict[str, Any]:
    """The client's keyword arguments; secrets are read from their files and kept nowhere else."""
    given: dict[str, Any] = {"security_protocol": settings.protocol}
    if settings.protocol.endswith("SSL"):
        given["ssl_context"] = tls_context(settings)
    if settings.protocol.startswith("SASL"):
        given |= {
            "sasl_mechanism": settings.mechanism, "sasl_plain_username": settings.username,
            "sasl_plain_password": _password(settings),
        }  # fmt: skip
    return given


def tls_context(settings: KafkaSecurity) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.ca_file)
        if settings.cert_file:
            context.load_cert_chain(settings.cert_file, settings.key_file)
    except (OSError, ssl.SSLError) as error:
        raise BadSettings(
            f"kafka.security.ca_file, .cert_file or .key_file cannot be used: {error}",
            remedy="each must be a readable PEM file",
        ) from None
    return context


def _password(settings: KafkaSecurity) -> str:
    assert settings.password_file is not None  # settings refuse a SASL protocol without it
    try:
        return settings.password_file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BadSettings(f"kafka.security.password_file cannot be read: {error}") from None


def producer(settings: KafkaSettings, *, transactional_id: str | None = None) -> AIOKafkaProducer:
    """An idempotent writer; with an id, the one that fences whoever had it before."""
    return AIOKafkaProducer(
        bootstrap_servers=settings.bootstrap_servers, client_id=CLIENT, acks="all", enable_idempotence=True,
        transactional_id=transactional_id, transaction_timeout_ms=settings.transaction_timeout_s * 1000,
        linger_ms=0, max_batch_size=min(GATHERED_BYTES, settings.batch_bytes), max_request_size=PRODUCE_BYTES,
        request_timeout_ms=PRODUCE_MS, retry_backoff_ms=BACKOFF_MS, metadata_max_age_ms=METADATA_MS,
        **security(settings.security),
    )  # fmt: skip


@asynccontextmanager
async def producing(settings: KafkaSettings, doing: str, *, remedy: str = "") -> AsyncIterator[AIOKafkaProducer]:
    """A plain writer, started and stopped; what goes wrong with it until then is said with `doing` and `remedy`."""
    writer = producer(settings)
    try:
        async with asyncio.timeout(settings.call_timeout_s):
            await writer.start()
        yield writer
    except FAILURES as error:
        raise away(error, doing, remedy=remedy) from None
    finally:
        await stop(writer.stop())


def transactional_id(settings: KafkaSettings, slot: int) -> str:
    return f"{CLIENT}.{settings.group}.{slot}"


async def reach(settings: KafkaSettings, *, max_wait_s: float, waiting: Callable[[str, float], None]) -> None:
    """Return once a broker has let us in; a refusal is raised at once, silence only after `max_wait_s`. Whatever uses
    Kafka begins here, so it is here that a client which we do not know is refused."""
    known_client.require()
    loop = asyncio.get_running_loop()
    deadline, pause = loop.time() + max_wait_s, FIRST_PAUSE_S
    while True:
        try:
            return await _knock(settings)
        except BrokerAway as away:
            if loop.time() + pause > deadline:
                raise
            waiting(str(away), pause)
        await asyncio.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE_S)


async def _knock(settings: KafkaSettings) -> None:
    """One connection to the first broker that answers. The client itself would hide why it was refused."""
    given, problem = security(settings.security), "kafka.bootstrap_servers is empty"
    for address in filter(None, (part.strip() for part in settings.bootstrap_servers.split(","))):
        host, _, port = address.rpartition(":")
        if not (host and port.isdigit()):
            raise BadSettings(f"kafka.bootstrap_servers: '{address}' is not host:port")
        try:
            connection = await create_conn(
                host.strip("[]"), int(port), client_id=CLIENT, request_timeout_ms=REQUEST_MS, **given
            )
        except Exception as error:
            problem = f"{address}: {error or type(error).__name__}"
            if (refused := _refusal(error, settings)) is not None:
                raise refused from None
        else:
            connection.close()
            return
    raise BrokerAway(f"no broker answers: {problem}", remedy="see kafka.bootstrap_servers and whether the broker runs")


def _refusal(error: BaseException, settings: KafkaSettings) -> TickcastError | None:
    """What no waiting will cure, with the setting to look at."""
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLError):
            return BadBroker(
                f"TLS with {settings.bootstrap_servers} failed: {cause}",
                remedy="see kafka.security.protocol, .ca_file, .cert_file and .key_file",
            )
        if isinstance(cause, kafka_errors.SaslAuthenticationFailed | kafka_errors.AuthenticationFailedError):
            return BadBroker(
                f"{settings.bootstrap_servers} refuses the user '{settings.security.username}'",
                remedy="see kafka.security.username, .password_file and .mechanism",
            )
        if isinstance(cause, kafka_errors.UnsupportedSaslMechanismError):
            return BadBroker(f"the broker does not offer it: {cause}", remedy="see kafka.security.mechanism")
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what it came from: the client wraps what its background task met."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def in_our_words(error: BaseException, doing: str) -> TickcastError:
    """An error of the client while it runs, with its fate."""
    for cause in _causes(error):
        if isinstance(cause, TickcastError):
            return cause
        if isinstance(cause, FENCED):
            return Fenced(
                f"{doing}: another daemon has taken this slot", remedy="see kafka.slot; only one may run per slot"
            )
        if isinstance(cause, NO_RIGHTS):
            return BadBroker(
                f"{doing}: the broker gives no right to it: {cause!r}", remedy="see the ACLs in docs/kafka.md"
            )
    return TransactionLost(f"{doing}: {error!r}")


def away(error: Exception, doing: str, *, remedy: str = "") -> TickcastError:
    """As `in_our_words`, of what is part of no transaction."""
    return (
        in_our_words(error, doing) if isinstance(error, NO_RIGHTS) else BrokerAway(f"{doing}: {error!r}", remedy=remedy)
    )


@asynccontextmanager
async def admin(settings: KafkaSettings) -> AsyncIterator[AIOKafkaAdminClient]:
    client = AIOKafkaAdminClient(
        bootstrap_servers=settings.bootstrap_servers, client_id=CLIENT, request_timeout_ms=REQUEST_MS,
        **security(settings.security),
    )  # fmt: skip
    try:
        async with asyncio.timeout(settings.call_timeout_s):
            await client.start()
        yield client
    except FAILURES as error:
        raise BrokerAway(f"the broker does not answer: {error!r}") from None
    finally:
        await stop(client.close())


async def committed(settings: KafkaSettings, sources: Iterable[Source]) -> dict[Source, Committed]:
    """What the group has committed. Right only after the fence: before it, a commit may still be on its way."""
    wanted = [TopicPartition(*source) for source in sources]
    async with admin(settings) as client:
        try:
            answer: Mapping[TopicPartition, OffsetAndMetadata] = await _patiently(
                lambda: client.list_consumer_group_offsets(settings.group, partitions=wanted), settings.call_timeout_s
            )
        except NO_RIGHTS as error:
            raise in_our_words(error, f"reading the positions of kafka.group '{settings.group}'") from None
    return {
        (at.topic, at.partition): Committed(found.offset, read_note(found.metadata))
        for at, found in answer.items()
        if found.offset >= 0
    }


async def _patiently(ask: Callable[[], Any], within_s: float) -> Any:
    """Ask again while the broker is still electing who answers."""
    deadline = asyncio.get_running_loop().time() + within_s
    while True:
        try:
            return await ask()
        except NOT_YET as error:
            if asyncio.get_running_loop().time() > deadline:
                raise BrokerAway(f"no broker coordinates the group: {error!r}") from None
        await asyncio.sleep(FIRST_PAUSE_S)


def read_note(text: str | None) -> dict[str, Any]:
    """The note beside an offset; what another program wrote there is no note."""
    with suppress(ValueError, TypeError):
        note = json.loads(text or "{}")
        if isinstance(note, dict):
            return note
    return {}


async def stop(closing: Any, *, within_s: float = 5.0) -> bool:
    """Stop a client: a fenced or cut-off one may hang, raise, or raise its own tasks' cancellation; we leave anyway.
    Returns whether it ended well."""
    task = asyncio.ensure_future(closing)
    await asyncio.wait({task}, timeout=within_s)
    if not task.done():
        task.cancel()
        return False
    return not task.cancelled() and task.exception() is None
