"""The command line. It parses, calls the app, and turns errors into a message and an exit code."""

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tickcast import __version__
from tickcast.errors import EXIT_DIED, EXIT_OK, EXIT_SECOND_SIGNAL, BadSettings, TickcastError
from tickcast.settings import Origins, Settings, load
from tickcast_desk.command_line import comma_list
from tickcast_desk.learn import add_learn
from tickcast_desk.model_commands import add_commands

if TYPE_CHECKING:
    from tickcast.app.bus import Bus
    from tickcast.clock import SystemClock

HOUR_S = 3600

T = TypeVar("T")
Handler = Callable[[argparse.Namespace, Settings, Origins], int]


def main(arguments: Sequence[str] | None = None) -> int:
    args = parser().parse_args(arguments)
    try:
        settings, origins = load([Path(f) for f in args.config], _overrides(args.set))
        handler: Handler = args.handler
        return handler(args, settings, origins)
    except TickcastError as error:
        print(f"tickcast: {error.code}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_SECOND_SIGNAL


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="tickcast", description="Forecasts market ticks as they stream, and keeps score."
    )
    top.add_argument("--version", action="version", version=f"tickcast {__version__}")
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--config", action="append", default=[], metavar="FILE", help="settings file; later ones win")
    common.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="override one setting")

    def add(name: str, handler: Handler, help: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, parents=[common], help=help, description=help)
        command.set_defaults(handler=handler)
        return command

    check = add("check", _check, "print every setting with its origin, and what the deployment will need")
    check.add_argument("--data", type=Path, help="instead: what is wrong with a file or folder of ticks or bars")
    demo = add("demo", _demo, "a synthetic market, a model fitted on it, and the live daemon, in a minute")
    demo.add_argument("--headless", action="store_true", help="plain lines instead of the live view")
    demo.add_argument("--seconds", type=float, default=30.0, help="how long the daemon runs")
    demo.add_argument("--out", type=Path, default=Path("out/demo"), help="folder of the model, the store and the logs")
    _add_replay_arguments(add("replay", _replay, "run history through the same engine and report how it did"))
    add_commands(add, _run_loop)
    add_learn(add, _time_ns)
    load_data = add("load", _load, "put history into the store, so that windows are warm at start")
    load_data.add_argument("--data", type=Path, required=True, help="file or folder of ticks or bars")
    query = add("query", _query, "one SELECT over the store, through the daemon where it runs")
    query.add_argument("sql")
    add("run", _run, "the daemon")
    reshard = add("reshard", _reshard, "share the partitions out to another number of slots, while all are stopped")
    reshard.add_argument("--slots", type=_positive, required=True, metavar="N", help="the new number of slots")
    units = add("install-units", _install_units, "write systemd's units with the paths of this machine")
    units.add_argument("--to", type=Path, default=Path("/etc/systemd/system"), metavar="DIR", help="where they go")
    _add_synth_arguments(add("synth", _synth, "a seeded synthetic market, to a file or live to the broker"))
    add("schema", _schema, "a record's JSON Schema, or the list of records").add_argument("name", nargs="?")
    add("reference", _reference, "print the reference page of the documentation")
    add("warm", _warm, "compile all kernels into the cache")
    return top


def _add_replay_arguments(replay: argparse.ArgumentParser) -> None:
    history = replay.add_mutually_exclusive_group(required=True)
    history.add_argument("--data", type=Path, help="file or folder of ticks or bars")
    history.add_argument("--from-kafka", metavar="TOPIC", help="what the topic holds between --start and --end")
    replay.add_argument("--out", type=Path, default=Path("out/replay"), help="folder for the report and its data")
    first, stop = ("--from", "--start"), ("--to", "--end")
    replay.add_argument(*first, dest="start", type=_time_ns, metavar="TIME", help="first event time, RFC 3339")
    replay.add_argument(*stop, dest="end", type=_time_ns, metavar="TIME", help="event time to stop before")
    replay.add_argument("--speed", type=_speed, default=0.0, metavar="max|N", help="event seconds per second")
    replay.add_argument("--symbols", type=comma_list, metavar="A,B", help="only these symbols")
    replay.add_argument("--model", help="a rung or a model folder, instead of model.default")
    replay.add_argument("--chunk", type=_positive, default=50_000, metavar="N", help="messages per turn")


def _add_synth_arguments(synth: argparse.ArgumentParser) -> None:
    market = synth.add_mutually_exclusive_group(required=True)
    market.add_argument("--out", type=Path, help=".parquet, .csv or .jsonl, also .gz")
    market.add_argument("--to", choices=["kafka"], help="send ticks of now to the first of topics.ticks")
    synth.add_argument("--symbols", type=_positive, default=50)
    synth.add_argument("--seconds", type=_positive, help="default: an hour in a file, until Ctrl-C to a broker")
    synth.add_argument("--seed", type=int, default=1)
    synth.add_argument("--rate", type=_speed, default=500.0, metavar="max|N", help="ticks per second, in the mean")


def _check(args: argparse.Namespace, settings: Settings, origins: Origins) -> int:
    if args.data is not None:
        from tickcast_desk.check_data import print_data_check

        return EXIT_OK if print_data_check(settings, args.data) else EXIT_DIED
    from tickcast_desk.check import print_check

    print_check(settings, origins)
    return EXIT_OK


def _run(args: argparse.Namespace, settings: Settings, origins: Origins) -> int:
    from tickcast.app.daemon import Daemon
    from tickcast.app.reload import Reload
    from tickcast.clock import SystemClock
    from tickcast.edges.telemetry import set_up_logging
    from tickcast_desk.check import refuse_too_large
    from tickcast_desk.footprint import state_bytes

    refuse_too_large(settings, state_bytes=state_bytes(settings))

    async def serve() -> None:
        clock = SystemClock()
        set_up_logging(settings.log, clock=clock)
        daemon = Daemon(settings, _bus(settings, clock), clock=clock)
        drain_on_signals(daemon.drain)
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, Reload(
            settings, lambda: load([Path(f) for f in args.config], _overrides(args.set))[0],
            notifier=daemon.notifier, clock=clock, renew_keys=daemon.renew_keys,
        ))  # fmt: skip
        await daemon.run()

    _run_loop(serve)
    return EXIT_OK


def _bus(settings: Settings, clock: "SystemClock") -> "Bus":
    """Only what the settings name is imported."""
    bus: Bus
    if settings.bus.kind == "kafka":
        from tickcast.app.group_bus import GroupBus
        from tickcast.app.kafka_bus import KafkaBus

        bus = KafkaBus(settings) if settings.kafka.assignment == "static" else GroupBus(settings)
    elif settings.bus.kind == "mqtt":
        from tickcast.app.mqtt_bus import MqttBus

        bus = MqttBus(settings)
    else:
        from tickcast.app.bus_edges import EmbeddedBus
        from tickcast.edges.memory_bus import MemoryBus

        bus = EmbeddedBus(MemoryBus(clock))
    if settings.mqtt.mirror:
        from tickcast.app.mqtt_bus import MirroredBus

        bus = MirroredBus(bus, settings)
    return bus


def _install_units(args: argparse.Namespace, settings: Settings, origins: Origins) -> int:
    from tickcast_desk.install_units import install_units

    install_units(settings, [Path(f) for f in args.config], to=args.to)
    return EXIT_OK


def _reshard(args: argparse.Namespace, settings: Settings, origins: Origins) -> int:
    from tickcast.clock import SystemClock
    from tickcast_desk.reshard import reshard

    def of_slot(slot: int) -> Settings:
        chosen = {"kafka.slot": str(slot), "kafka.slots": str(max(args.slots, slot + 1))}
        return load([Path(f) for f in args.config], _overrides(args.set) | chosen)[0]

    done = _run_loop(lambda: reshard(of_slot, args.slots, SystemClock()))
    print(f"{done.partitions} partitions for {args.slots} slots, {done.rows:,} rows handed over")
    print(f"set kafka.slots = {args.slots} and start them")
    return EXIT_OK


def _demo(args: argparse.Namespace, settings: Settings, origins: Origins) -> int:
    from tickcast_desk.demo import demo

    _run_loop(lambda: demo(settings, args.out, seconds=args.seconds, headless=args.headless))
    return EXIT_OK


def _replay(args: argparse.Namespace, settings: Settings, origins: Origins) -> int:
    from tickcast_desk.replay import Order, replay_and_report

    if args.model:
        settings = load([Path(f) for f in args.config], {**_overrides(args.set), "model.default": args.model})[0]
    order = Order(args.data or args.from_kafka, args.out, args.chunk, args.speed, args.start, args.end, args.symbols)
    _run_loop(lambda: replay_and_report(settings, order))
    return EXIT_OK


def _load(args: argparse.Namespace, settings: Settings, origins: Origins) -> int:
    from tickcast.app.restore import load_into_store

    print(f"{_run_loop(lambda: load_into_store(settings, args.data)):,} bars stored in {settings.store.path}")
    return EXIT_OK


def _query(args: argparse.Namespace, settings: Settings, origins: Origins) -> int:
    from tickcast_desk.query import print_query

    print_query(settings, args.sql)
    return EXIT_OK


def _synth(args: argparse.Namespace, settings: Settings, origins: Origins) -> int:
    from tickcast_desk.synth import write

    if args.to:
        return _synth_live(args, settings)
    if not args.rate:
        raise BadSettings("--rate max is for --to kafka: time in a file has no fastest pace", remedy="give --rate N")
    ticks = write(
        args.out, symbols=args.symbols, seconds=args.seconds or HOUR_S, seed=args.seed, tick_rate_hz=args.rate
    )
    print(f"{ticks:,} ticks in {args.out}")
    return EXIT_OK


def _synth_live(args: argparse.Namespace, settings: Settings) -> int:
    from tickcast.clock import SystemClock
    from tickcast_desk.produce import Feed, produce

    async def trade() -> int:
        stop = asyncio.Event()
        drain_on_signals(stop.set)
        feed = Feed(args.symbols, args.seed, args.rate, args.seconds)
        return await produce(settings, feed, clock=SystemClock(), stop=stop)

    print(f"{_run_loop(trade):,} ticks in {settings.topics.ticks[0]}")
    return EXIT_OK


def _schema(args: argparse.Namespace, settings: Settings, origins: Origins) -> int:
    from tickcast_desk.schemas import listing, schema_of, text_of

    sys.stdout.write(text_of(schema_of(args.name)) if args.name else listing())
    return EXIT_OK


def _reference(args: argparse.Namespace, settings: Settings, origins: Origins) -> int:
    from tickcast_desk.reference import render

    sys.stdout.write(render())
    return EXIT_OK


def _warm(args: argparse.Namespace, settings: Settings, origins: Origins) -> int:
    from tickcast.app.warm import warm

    warm()
    return EXIT_OK


def drain_on_signals(drain: Callable[[], None]) -> None:
    """The first SIGINT or SIGTERM drains, the second ends the process at once."""
    loop = asyncio.get_running_loop()
    seen: list[bool] = []

    def on_signal() -> None:
        if seen:
            os._exit(EXIT_SECOND_SIGNAL)
        seen.append(True)
        drain()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)


def _run_loop(body: Callable[[], Coroutine[Any, Any, T]]) -> T:
    import uvloop

    return uvloop.run(body())


def _overrides(pairs: Sequence[str]) -> dict[str, str]:
    for pair in pairs:
        if "=" not in pair:
            raise BadSettings(f"'{pair}' is not of the form section.key=value")
    return dict(pair.split("=", 1) for pair in pairs)


def _positive(text: str) -> int:
    value = int(text)
    if value <= 0:
        raise argparse.ArgumentTypeError("must be positive")
    return value


def _speed(text: str) -> float:
    return 0.0 if text == "max" else float(_positive(text))


def _time_ns(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a time like 2026-01-31T09:30:00Z") from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return int(moment.timestamp()) * 10**9 + moment.microsecond * 1000


if __name__ == "__main__":
    sys.exit(main())
