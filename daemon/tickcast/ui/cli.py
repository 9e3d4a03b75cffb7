"""The command line. It parses, calls the app, and turns errors into a message and an exit code."""

import argparse
import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from tickcast import __version__
from tickcast.beside import cause_of
from tickcast.errors import EXIT_DIED, EXIT_OK, EXIT_SECOND_SIGNAL, BadSettings, TickcastError
from tickcast.extras import missing_package
from tickcast.settings import Origins, Settings, load
from tickcast.ui.command_line import Doubts, Handler, comma_list, say_defaults
from tickcast.ui.learn import add_learn
from tickcast.ui.model_commands import add_commands

HOUR_S = 3600

T = TypeVar("T")


def main(arguments: Sequence[str] | None = None) -> int:
    args = parser().parse_args(arguments)
    try:
        with _ended_by_signals():
            settings, origins = load([Path(f) for f in args.config], _overrides(args.set))
            handler: Handler = args.handler
            return handler(args, settings, origins)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the flush at the end fails once more
        return EXIT_DIED
    except (TickcastError, OSError, ModuleNotFoundError, BaseExceptionGroup) as error:
        return _tell(cause_of(error))
    except KeyboardInterrupt as stopped:
        print("stopped", *stopped.args, sep="; ", file=sys.stderr)
        return EXIT_SECOND_SIGNAL


def _tell(error: BaseException) -> int:
    """What went wrong, on one line, as an exit code; a mistake of this program is raised again."""
    if isinstance(error, ModuleNotFoundError):
        error = missing_package(error) or error
    if isinstance(error, TickcastError):
        print(f"tickcast: {error.code}: {error}", file=sys.stderr)
        return error.exit_code
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        print(f"tickcast: os_error: {where}{error.strerror or error}", file=sys.stderr)
        return EXIT_DIED
    raise error


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGTERM and Ctrl-C raise at once wherever a command is, so that it clears up; what drains takes its own.

    asyncio would put the interrupt off until its loop is free, which a fit within a replay is not for minutes.
    """

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ours = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) is not signal.SIG_IGN]
    before = [(number, signal.signal(number, stop)) for number in ours]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)


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
    check.add_argument("--changed", action="store_true", help="only settings that are not at their default")
    check.add_argument("--offline", action="store_true", help="do not look at the broker")
    demo = add("demo", _demo, "a synthetic market that breaks, and a live daemon that mends its model, in a minute")
    demo.add_argument("--headless", action="store_true", help="plain lines instead of the live view")
    demo.add_argument("--seconds", type=float, default=120.0, help="how long at most; it ends once a fit is promoted")
    demo.add_argument("--picture", type=Path, metavar="FILE", help="an SVG of what the view shows last")
    demo.add_argument("--out", type=Path, default=Path("out/demo"), help="folder of the model, the store and the logs")
    _add_replay_arguments(add("replay", _replay, "run history through the same engine and report how it did"))
    add_commands(add, _run_loop)
    add_learn(add, _time_ns)
    load_data = add("load", _load, "put history into the store, so that windows are warm at start")
    load_data.add_argument("--data", type=Path, required=True, help="file or folder of ticks or bars")
    load_data.add_argument("--symbols", type=comma_list, metavar="A,B", help="only these symbols")
    query = add("query", _query, "one SELECT over the store, through the daemon where it runs")
    query.add_argument("sql")
    add("run", _run, "the daemon")
    topics = add("topics", _topics, "the topics that a deployment on Kafka needs, and which of them are missing")
    topics.add_argument("--create", action="store_true", help="make those that are missing")
    reshard = add("reshard", _reshard, "share the partitions out to another number of slots, while all are stopped")
    reshard.add_argument("--slots", type=_positive, required=True, metavar="N", help="the new number of slots")
    units = add("install-units", _install_units, "write systemd's units with the paths of this machine")
    units.add_argument("--to", type=Path, default=Path("/etc/systemd/system"), metavar="DIR", help="where they go")
    _add_synth_arguments(add("synth", _synth, "a seeded synthetic market, to a file or live to the broker"))
    add("schema", _schema, "a record's JSON Schema, or the list of records").add_argument("name", nargs="?")
    add("reference", _reference, "print the reference page of the documentation")
    add("kinds", _kinds, "the kinds of models and features, and the rungs, which need no fit")
    add("warm", _warm, "compile all kernels into the cache")
    for command in commands.choices.values():
        say_defaults(command)
    return top


def _add_replay_arguments(replay: argparse.ArgumentParser) -> None:
    history = replay.add_mutually_exclusive_group(required=True)
    history.add_argument("--data", type=Path, help="file or folder of ticks or bars")
    history.add_argument("--from-kafka", metavar="TOPIC", help="what the topic holds between --start and --end")
    replay.add_argument("--out", type=Path, default=Path("out/replay"), help="folder for the report and its data")
    first, stop = ("--from", "--start"), ("--to", "--end")
    replay.add_argument(*first, dest="start", type=_time_ns, metavar="TIME", help="first event time, RFC 3339")
    replay.add_argument(*stop, dest="end", type=_time_ns, metavar="TIME", help="event time to stop before")
    replay.add_argument(
        "--speed", type=_pace, default=0.0, metavar="max|N", help="event seconds per second; default: max"
    )
    replay.add_argument("--symbols", type=comma_list, metavar="A,B", help="only these symbols")
    replay.add_argument("--model", help="a rung or a model folder, instead of model.default")
    replay.add_argument(
        "--chunk", type=_positive, metavar="N", help="messages per turn (default: 50000; with --loop 1000)"
    )
    replay.add_argument(
        "--loop", action="store_true", help="retrain on the way, never, by the clock and by need, and compare"
    )
    replay.add_argument(
        "--first-bars", type=_positive, metavar="N", help="of --loop: bars that the first model is fitted on (2000)"
    )
    replay.add_argument(
        "--job-bars", type=_natural, metavar="N", help="of --loop: bars from the order of a fit to its answer (1)"
    )
    replay.add_argument("--trials", type=_positive, metavar="N", help="of --loop: trials of a search (20)")


def _add_synth_arguments(synth: argparse.ArgumentParser) -> None:
    market = synth.add_mutually_exclusive_group(required=True)
    market.add_argument("--out", type=Path, help=".parquet, .csv or .jsonl, also .gz")
    market.add_argument("--to", choices=["kafka"], help="send ticks of now to the first of topics.ticks")
    synth.add_argument("--symbols", type=_positive, default=50, help="how many")
    synth.add_argument("--seconds", type=_positive, help="default: an hour in a file, until Ctrl-C to a broker")
    synth.add_argument("--seed", type=int, default=1, help="of all that is drawn")
    synth.add_argument("--rate", type=_pace, default=500.0, metavar="max|N", help="ticks per second, in the mean")


def _check(args: argparse.Namespace, settings: Settings, origins: Origins) -> int:
    if args.data is not None:
        from tickcast.ui.check_data import print_data_check

        return EXIT_OK if print_data_check(settings, args.data) else EXIT_DIED
    from tickcast.ui.check import print_check

    print_check(settings, origins, changed=args.changed)
    if settings.bus.kind != "kafka" or args.offline:
        return EXIT_OK
    from tickcast.ui.topics import check_broker

    return EXIT_OK if _run_loop(lambda: check_broker(settings)) else EXIT_DIED


def _topics(args: argparse.Namespace, settings: Settings, origins: Origins) -> int:
    from tickcast.ui.topics import list_topics

    return EXIT_OK if _run_loop(lambda: list_topics(settings, create=args.create)) else EXIT_DIED


def _run(args: argparse.Namespace, settings: Settings, origins: Origins) -> int:
    from tickcast.live.process import ended_at_once

    with ended_at_once():
        from tickcast.live.serve import serve
        from tickcast.ui.check import refuse_too_large
        from tickcast.ui.footprint import state_bytes

        refuse_too_large(settings, state_bytes=state_bytes(settings))
        os.umask(os.umask(0o077) | 0o027)  # what it leaves is nobody else's to read, and its group's at most
        read_again = partial(load, [Path(f) for f in args.config], _overrides(args.set))
        _run_loop(lambda: serve(settings, lambda: read_again()[0]))
    return EXIT_OK


def _install_units(args: argparse.Namespace, settings: Settings, origins: Origins) -> int:
    from tickcast.ui.install_units import install_units

    install_units(settings, [Path(f) for f in args.config], to=args.to)
    return EXIT_OK


def _reshard(args: argparse.Namespace, settings: Settings, origins: Origins) -> int:
    from tickcast.clock import SystemClock
    from tickcast.ui.reshard import reshard

    def of_slot(slot: int) -> Settings:
        chosen = {"kafka.slot": str(slot), "kafka.slots": str(max(args.slots, slot + 1))}
        return load([Path(f) for f in args.config], _overrides(args.set) | chosen)[0]

    done = _run_loop(lambda: reshard(of_slot, args.slots, SystemClock()))
    print(f"{done.partitions} partitions for {args.slots} slots, {done.rows:,} rows handed over")
    print(f"set kafka.slots = {args.slots} and start them")
    return EXIT_OK


def _demo(args: argparse.Namespace, settings: Settings, origins: Origins) -> int:
    from tickcast.ui.demo import demo

    demo(settings, args.out, seconds=args.seconds, headless=args.headless, picture=args.picture, run=_run_loop)
    return EXIT_OK


def _replay(args: argparse.Namespace, settings: Settings, origins: Origins) -> int:
    from tickcast.batch.replay import CHUNK, ReplayOrder
    from tickcast.ui.replay_command import replay_and_report

    if args.model:
        settings = load([Path(f) for f in args.config], {**_overrides(args.set), "model.default": args.model})[0]
    order = ReplayOrder(
        args.data or args.from_kafka, args.out, chunk=args.chunk or CHUNK, speed=args.speed, from_ns=args.start,
        to_ns=args.end, symbols=args.symbols,
    )  # fmt: skip
    doubts = Doubts()
    if args.loop:
        from tickcast.ui.loop_command import loop_and_report

        _run_loop(lambda: loop_and_report(args, settings, order, warn=doubts))
    elif args.first_bars or args.trials or args.job_bars is not None:
        raise BadSettings("--first-bars, --job-bars and --trials are of the loop", remedy="add --loop")
    else:
        _run_loop(lambda: replay_and_report(settings, order, warn=doubts))
    return doubts.exit_code


def _load(args: argparse.Namespace, settings: Settings, origins: Origins) -> int:
    from tickcast.live.restore import load_into_store

    doubts = Doubts()
    stored = _run_loop(lambda: load_into_store(settings, args.data, symbols=args.symbols, warn=doubts))
    print(f"{stored:,} bars stored in {settings.store.path}")
    return doubts.exit_code


def _query(args: argparse.Namespace, settings: Settings, origins: Origins) -> int:
    from tickcast.ui.query import print_query

    print_query(settings, args.sql)
    return EXIT_OK


def _synth(args: argparse.Namespace, settings: Settings, origins: Origins) -> int:
    from tickcast.batch.synth import write

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
    from tickcast.live.process import drain_on_signals
    from tickcast.ui.produce import Feed, produce

    async def trade() -> int:
        stop = asyncio.Event()
        drain_on_signals(stop.set)
        feed = Feed(args.symbols, args.seed, args.rate, args.seconds)
        return await produce(settings, feed, clock=SystemClock(), stop=stop)

    print(f"{_run_loop(trade):,} ticks in {settings.topics.ticks[0]}")
    return EXIT_OK


def _schema(args: argparse.Namespace, settings: Settings, origins: Origins) -> int:
    from tickcast.ui.documents.schemas import listing, schema_of, text_of

    sys.stdout.write(text_of(schema_of(args.name)) if args.name else listing())
    return EXIT_OK


def _reference(args: argparse.Namespace, settings: Settings, origins: Origins) -> int:
    from tickcast.ui.documents.reference import render

    sys.stdout.write(render())
    return EXIT_OK


def _kinds(args: argparse.Namespace, settings: Settings, origins: Origins) -> int:
    from tickcast.loop.build import RUNGS
    from tickcast.plugin import names

    print(f"rungs, for --model of replay and backtest: {', '.join(RUNGS)}")
    print(f"kinds, for --model of fit and optimize: {', '.join(name for name in names('models') if name not in RUNGS)}")
    print(f"features, for [[features.set]]: {', '.join(names('features'))}")
    return EXIT_OK


def _warm(args: argparse.Namespace, settings: Settings, origins: Origins) -> int:
    from tickcast.live.compile_kernels import warm

    warm()
    return EXIT_OK


def _run_loop(body: Callable[[], Coroutine[Any, Any, T]]) -> T:
    import uvloop

    return uvloop.run(body())


def _overrides(pairs: Sequence[str]) -> dict[str, str]:
    for pair in pairs:
        if "=" not in pair:
            raise BadSettings(f"'{pair}' is not of the form section.key=value")
    return dict(pair.split("=", 1) for pair in pairs)


def _natural(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number")
    return int(text)


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number above 0")
    return int(text)


def _pace(text: str) -> float:
    if text == "max":
        return 0.0
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"'{text}' is neither `max` nor a whole number above 0")
    return float(text)


def _time_ns(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a time like 2026-01-31T09:30:00Z") from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return int(moment.timestamp()) * 10**9 + moment.microsecond * 1000
