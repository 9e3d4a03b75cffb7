"""One MQTT connection that comes back by itself, and what a broker's refusal means. It moves no message.

aiomqtt does not reconnect, and its client cannot be used again after a connection broke: each attempt makes one anew.
"""

import asyncio
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import structlog
from aiomqtt import Client, MqttError
from aiomqtt.exceptions import MqttConnectError

from tickcast.clock import Clock, fresh_id
from tickcast.errors import BadBroker, BadSettings, BrokerAway, Refusal
from tickcast.settings.buses import MqttSettings

RETRY_FIRST_S, RETRY_MOST_S = 0.25, 15.0
ANSWER_S = 5.0  # for the broker to answer anything
KEEPALIVE_S = 15
NO_DELAY = (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else each burst waits 40 ms for the one before
DEFAULT_PORTS = {"mqtt": 1883, "mqtts": 8883}
USER = "mqtt.username and mqtt.password_file"
REFUSED_BY = {132: "mqtt.url", 133: "mqtt.client_id", 134: USER, 135: USER}

Talk = Callable[[Client], Awaitable[None]]


class Address(NamedTuple):
    host: str
    port: int
    secure: bool


class _Overheard(logging.Handler):
    """Why TLS failed after the handshake: a server that misses our certificate says so then, and paho only logs it."""

    def __init__(self) -> None:
        super().__init__()
        self.error: ssl.SSLError | None = None

    def emit(self, record: logging.LogRecord) -> None:
        values = record.args if isinstance(record.args, tuple) else ()
        self.error = next((value for value in values if isinstance(value, ssl.SSLError)), self.error)


class _ClosedWhenRefused(ssl.SSLSocket):
    """paho leaves a socket open when its handshake fails."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except OSError:
            self.close()
            raise


class Link:
    """`keep` holds the connection; `tried` is set once the first attempt has gone well or come to nothing."""

    def __init__(self, settings: MqttSettings, role: str, clock: Clock, **options: Any) -> None:
        self.is_up = False
        self.connects = 0
        self.tried = asyncio.Event()
        self._client_id = f"{settings.client_id or 'tickcast-' + fresh_id()[:8]}-{role}"
        self._settings = settings
        self._address = address(settings)
        self._tls = tls_context(settings) if self._address.secure else None
        self._options = options
        self._clock = clock
        self._away_since = clock.monotonic_ns()
        self._log = structlog.get_logger()
        password(settings)  # a file that cannot be read is refused before anything is tried

    def greeted(self) -> None:
        """Told by who talks: the broker has granted all that was asked for."""
        self.is_up, self.connects = True, self.connects + 1
        self.tried.set()
        self._log.info("mqtt_connected", client=self._client_id, broker=self._settings.url)

    def away_s(self) -> float:
        """How long there has been no connection; 0 where there is one."""
        return 0.0 if self.is_up else (self._clock.monotonic_ns() - self._away_since) / 1e9

    async def keep(self, talk: Talk, *, max_away_s: float = float("inf")) -> None:
        """For ever: connect, talk until the connection breaks, wait ever longer, connect again.

        BadBroker when the first attempt is refused, BrokerAway when there was no connection for `max_away_s`.
        """
        delay, self._away_since = RETRY_FIRST_S, self._clock.monotonic_ns()
        while True:
            connects = self.connects
            try:
                await self._connect_and(talk)
            except (MqttError, OSError, Refusal) as error:
                if self.connects > connects:
                    delay, self._away_since = RETRY_FIRST_S, self._clock.monotonic_ns()
                self._judge(error, away_s=self.away_s(), max_away_s=max_away_s)
                reason = str(error.__cause__ or error)
                self._log.warning("mqtt_away", client=self._client_id, reason=reason, retry_s=delay)
            finally:
                self.tried.set()
            await asyncio.sleep(delay)
            delay = min(2 * delay, RETRY_MOST_S)

    async def _connect_and(self, talk: Talk) -> None:
        overheard, logger = _Overheard(), logging.Logger("mqtt", logging.WARNING)
        logger.addHandler(overheard)
        client = Client(
            self._address.host, self._address.port, identifier=self._client_id, tls_context=self._tls,
            username=self._settings.username or None, password=password(self._settings),
            timeout=ANSWER_S, keepalive=KEEPALIVE_S, logger=logger, socket_options=[NO_DELAY],
            **self._options,
        )  # fmt: skip
        try:
            async with client:
                await _while_connected(client, talk)
        except MqttError:
            if overheard.error:
                raise overheard.error from None
            raise
        finally:
            self.is_up = False

    def _judge(self, error: Exception, *, away_s: float, max_away_s: float) -> None:
        """Raise what is not to be tried again."""
        refusal = refusal_of(error, self._settings)
        if refusal is not None and not self.tried.is_set():
            raise refusal from None
        if away_s > max_away_s:
            raise BrokerAway(
                f"no connection to {self._settings.url} for {away_s:.0f} s: {error}",
                remedy="see mqtt.url and runtime.max_wait_s",
            ) from None


async def _while_connected(client: Client, talk: Talk) -> None:
    """Talk, and raise MqttError as soon as the connection breaks, also while there is nothing to say."""
    tasks = [asyncio.ensure_future(talk(client)), asyncio.ensure_future(_until_broken(client))]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
    for end in ends:
        if isinstance(end, Exception):
            raise end


async def _until_broken(client: Client) -> None:
    async for _ in client.messages:  # a mirror subscribes to nothing, and a source takes messages before they are here
        pass


def address(settings: MqttSettings) -> Address:
    try:
        url = urlsplit(settings.url)
        port = url.port
    except ValueError as error:
        raise BadSettings(f"mqtt.url {settings.url}: {error}") from None
    if url.scheme not in DEFAULT_PORTS or not url.hostname or url.path.strip("/") or url.query or url.fragment:
        raise BadSettings(
            f"mqtt.url {settings.url} is no address", remedy="write mqtt://HOST:PORT, or mqtts:// for TLS"
        )
    if url.username or url.password:
        raise BadSettings("mqtt.url holds a user", remedy="use mqtt.username and mqtt.password_file")
    secure = url.scheme == "mqtts"
    if not secure and (settings.ca_file or settings.cert_file or settings.key_file):
        raise BadSettings(f"mqtt.url {settings.url} speaks no TLS", remedy="write mqtts://, or leave the files out")
    return Address(url.hostname, port or DEFAULT_PORTS[url.scheme], secure)


def tls_context(settings: MqttSettings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise BadSettings(f"mqtt.ca_file {settings.ca_file} cannot be used: {error}") from None
    context.sslsocket_class = _ClosedWhenRefused
    if settings.cert_file:
        try:
            context.load_cert_chain(settings.cert_file, settings.key_file)
        except (OSError, ssl.SSLError) as error:
            raise BadSettings(
                f"mqtt.cert_file {settings.cert_file} cannot be used with mqtt.key_file {settings.key_file}: {error}"
            ) from None
    return context


def password(settings: MqttSettings) -> str | None:
    """Read at each connection, so that a new password needs no restart."""
    file = settings.password_file
    return None if file is None else _text(file)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise BadSettings(f"mqtt.password_file {file} cannot be read: {error}") from None


def refusal_of(error: Exception, settings: MqttSettings) -> Refusal | None:
    """What the error says about our settings, if it does."""
    if isinstance(error, Refusal):
        return error
    failed = error if isinstance(error, ssl.SSLError) else error.__context__  # aiomqtt keeps the reason there
    if isinstance(failed, ssl.SSLError):
        return BadBroker(
            f"{settings.url}: TLS failed: {failed}", remedy="see mqtt.ca_file, mqtt.cert_file and mqtt.key_file"
        )
    code = getattr(error.rc, "value", None) if isinstance(error, MqttConnectError) else None
    if code in REFUSED_BY:
        return BadBroker(f"{settings.url} refuses us: {error}", remedy=f"see {REFUSED_BY[code]}")
    return None
