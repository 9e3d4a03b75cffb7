"""`tickcast learn`: features with learnt numbers, and groups of symbols, from history, as lines of a settings file.

It changes no settings: it prints what may be put there, with where it came from. The learning is the trainer's.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tickcast
from tickcast.batch.out_folder import claim_file
from tickcast.clock import moment
from tickcast.errors import EXIT_OK, BadData, BadSettings
from tickcast.settings import Origins, Settings
from tickcast.ui.command_line import Add, comma_list

if TYPE_CHECKING:
    from tickcast.batch.train.history import BarHistory

FEATURES = ("pca", "ica", "kmeans", "dbscan", "regime")
METHODS = {"regime": ("hmm", "mixture"), "groups": ("hierarchical", "dbscan")}  # the first is the default
LEAST = {"dbscan": 10, "groups": 2}
NEAR = 0.5  # groups by dbscan: symbols are near whose moves correlate by more than 1 less this
MOST_TIMES = 20_000  # moves that groups are made from


def add_learn(add: Add, time_ns: Callable[[str], int]) -> None:
    """The command and what it takes."""
    learn = add("learn", _learn, "learn the numbers of a feature, or groups of symbols, from history")
    learn.add_argument("kind", choices=[*FEATURES, "groups"])
    learn.add_argument("--data", type=Path, required=True, help="file or folder of ticks or bars")
    learn.add_argument("--until", type=time_ns, metavar="TIME", help="default: where fit's training part ends")
    learn.add_argument("--k", type=int, default=3, help="components, clusters, states or groups")
    learn.add_argument("--window", type=int, default=48, help="moves in a window")
    learn.add_argument("--sample", type=int, default=0, help="most windows to learn from; default: by kind")
    learn.add_argument(
        "--eps", type=float, default=0.0, help="dbscan: how near is near; default: from the data, of groups 0.5"
    )
    learn.add_argument(
        "--least",
        type=int,
        default=0,
        help="dbscan: neighbours, itself among them, of a core; default: 10, of groups 2",
    )
    learn.add_argument("--method", help="regime: hmm (default) or mixture; groups: hierarchical (default) or dbscan")
    learn.add_argument("--symbols", type=comma_list, metavar="A,B", help="only these symbols")
    learn.add_argument("--seed", type=int, default=0, help="of all that is drawn")
    learn.add_argument("--out", type=Path, metavar="FILE", help="write the lines there, besides printing them")


def _learn(args: argparse.Namespace, settings: Settings, origins: Origins) -> int:
    method = _method(args)
    if args.out is not None:
        claim_file(args.out, is_ours=_is_ours)
    import pyarrow.compute as pc

    from tickcast.batch.bar_history import history_of, read_closed
    from tickcast.batch.learn.unsupervised import training_end

    table = read_closed(settings, args.data, symbols=args.symbols).table
    on_gap = settings.bars.on_gap
    until_ns = args.until or training_end(history_of(table, on_gap=on_gap))
    seen = table.filter(pc.less_equal(table.column("as_of_ns"), until_ns))
    if not seen.num_rows:
        raise BadData(f"{args.data} closes no bar until {moment(until_ns)}", remedy="give a later --until")
    history = history_of(seen, on_gap=on_gap)
    make = _groups if args.kind == "groups" else _feature
    lines = [*_provenance(args, history, until_ns), *make(args, history, until_ns, method)]
    text = "\n".join(lines) + "\n"
    sys.stdout.write(text)
    if args.out is not None:
        args.out.write_text(text)
        print(f"these lines are in {args.out}", file=sys.stderr)
    return EXIT_OK


def _is_ours(path: Path) -> bool:
    """What an earlier run wrote, by its first line."""
    return path.read_bytes()[:64].startswith(b"# tickcast ")


def _method(args: argparse.Namespace) -> str:
    known = METHODS.get(args.kind, ("",))
    if args.method and args.method not in known:
        there = f"{args.kind} knows {' and '.join(known)}" if known[0] else f"{args.kind} has one only"
        raise BadSettings(f"--method {args.method}: {there}", remedy="leave it out, or name one of these")
    return args.method or known[0]


def _feature(args: argparse.Namespace, history: "BarHistory", until_ns: int, method: str) -> list[str]:
    from tickcast.batch.learn.unsupervised import LearnOrder, learn

    learnt = learn(history, LearnOrder(
        kind=args.kind, until_ns=until_ns, number=args.k, window=args.window, most_windows=args.sample, eps=args.eps,
        least=args.least or LEAST["dbscan"], method=method, seed=args.seed,
    ))  # fmt: skip
    entry = [f"{key} = {toml(value)}" for key, value in learnt.entry.items()]
    return [*_figures(learnt.figures), "[[features.set]]", *entry]


def _groups(args: argparse.Namespace, history: "BarHistory", until_ns: int, method: str) -> list[str]:
    from tickcast.batch.learn.symbol_groups import group_symbols

    found = group_symbols(
        history, until_ns=until_ns, method=method, count=args.k, eps=args.eps or NEAR,
        least=args.least or LEAST["groups"], most_times=args.sample or MOST_TIMES,
    )  # fmt: skip
    groups = {f"group_{n}": [_pattern(name) for name in members] for n, members in enumerate(found.members, start=1)}
    return [*_figures(found.figures), "[symbols.groups]", *(f"{name} = {toml(each)}" for name, each in groups.items())]


def _pattern(name: str) -> str:
    """The symbol itself as a pattern."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


def _provenance(args: argparse.Namespace, history: "BarHistory", until_ns: int) -> list[str]:
    of = f"{args.data.name}: {len(history):,} bars of {len(history.names):,} symbols until {moment(until_ns)}"
    return [
        f"# tickcast {tickcast.__version__}: learn {args.kind}, --seed {args.seed}, from {of}",
        f"# SHA-256 of these bars: {history.digest}",
    ]


def _figures(figures: dict[str, Any]) -> list[str]:
    return [f"# {name}: {_shown(value)}" for name, value in figures.items()]


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_shown(each) for each in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else f"{value:,}"


def toml(value: Any) -> str:
    """A text, a number, or a list; of a list of lists one a line."""
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if not isinstance(value, list):
        return repr(value)
    if value and isinstance(value[0], list):
        return "[\n" + "".join(f"  {toml(each)},\n" for each in value) + "]"
    return f"[{', '.join(map(toml, value))}]"
