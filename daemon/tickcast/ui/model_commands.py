"""The shell commands around models: what they take and whom they call. Each loads what it needs when it is called."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

from tickcast.errors import EXIT_OK
from tickcast.io.jobs.orders import KIND, AutoOrder, BacktestOrder, Metric, Pruner, Sampler, StartMode, TuneOrder
from tickcast.settings import Origins, Settings
from tickcast.ui.command_line import Add, comma_list, pairs, take_defaults

Run = Callable[[Any], Any]  # runs a coroutine function to its end


def add_commands(add: Add, run: Run) -> None:
    fit = add("fit", _fit, "train a model on history, in a child process")
    fit.add_argument("--model", default=KIND, help="kind of model")
    fit.add_argument("--data", type=Path, required=True, help="file or folder of ticks or bars")
    fit.add_argument("--out", type=Path, default=Path("out/model"), help="folder of the finished model")
    fit.add_argument("--symbols", type=comma_list, metavar="A,B", help="only these symbols")
    fit.add_argument("--name", help="name of the model; default: its kind")
    fit.add_argument("--tags", type=comma_list, default=[], metavar="A,B", help="words on its card")
    fit.add_argument("--param", action="append", default=[], metavar="KEY=VALUE", help="parameter of model or training")
    fit.add_argument("--start", type=Path, metavar="DIR", help="model folder that the fit begins with")
    fit.add_argument("--mode", choices=get_args(StartMode), help="how it begins with --start; default: warm")
    folders = "model folders that a combination is made of"
    fit.add_argument("--members", type=comma_list, default=[], metavar="DIR,DIR", help=folders)
    fit.add_argument("--method", help="how an ensemble weighs its members")
    fit.add_argument("--split", choices=["default", "paper"], default="default", help="how history is cut")
    evaluate = add("evaluate", _evaluate, "judge a fitted model on test data, with intervals, beside last value")
    evaluate.add_argument("--model", type=Path, required=True, help="model folder")
    evaluate.add_argument("--data", type=Path, required=True, help="file or folder of ticks or bars")
    evaluate.add_argument("--out", type=Path, default=Path("out/evaluate"), help="folder for evaluate.json")
    evaluate.add_argument("--symbols", type=comma_list, metavar="A,B", help="only these symbols")
    evaluate.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    _add_backtest(add("backtest", lambda *given: _backtest(run, *given), "walk through history and trade on forecasts"))
    _add_auto(add("auto", _auto, "from a history to a model worth having, or the verdict that there is none"))
    recommend = add("recommend", _recommend, "which kinds of model are worth trying on a history, and why")
    recommend.add_argument("--data", type=Path, required=True, help="file or folder of ticks or bars")
    recommend.add_argument("--symbols", type=comma_list, metavar="A,B", help="only these symbols")
    _add_optimize(add("optimize", _optimize, "look for the parameters of a model that fit best"))
    model = add("import", lambda *given: _import(run, *given), "register a model that was not fitted here")
    model.add_argument("path", type=Path, help="model folder, ONNX graph or weights in safetensors")
    model.add_argument("--kind", default="", help="kind of model that the weights are of")
    model.add_argument("--name", default="", help="name of the model; default: the file's, or that on a folder's card")
    model.add_argument("--tags", type=comma_list, default=[], metavar="A,B", help="words on its card")
    model.add_argument("--param", action="append", default=[], metavar="KEY=VALUE", help="parameter of the kind")
    _add_send(add("send", lambda *given: _send(run, *given), "give a running daemon a signed command"))
    keygen = add("keygen", _keygen, "make a key for commands, and print its entry for the keys file")
    keygen.add_argument("--id", required=True, help="name of the key")
    keygen.add_argument("--role", choices=["read", "train", "promote", "admin"], required=True, help="what it may do")
    keygen.add_argument("--algorithm", choices=["ed25519", "hmac-sha256"], default="ed25519", help="how it signs")
    keygen.add_argument("--out", type=Path, required=True, metavar="FILE", help="where the secret goes")


def _add_backtest(backtest: argparse.ArgumentParser) -> None:
    backtest.add_argument("--data", type=Path, required=True, help="file or folder of ticks or bars")
    backtest.add_argument("--out", type=Path, default=Path("out/backtest"), help="folder for the report and its data")
    backtest.add_argument("--model", help="a rung or a model folder, instead of model.default")
    backtest.add_argument("--symbols", type=comma_list, metavar="A,B", help="only these symbols")
    backtest.add_argument("--horizon", type=int, help="bars ahead that are traded; default: all")
    backtest.add_argument("--fee-bps", type=float, help="of one side, in hundredths of a percent")
    backtest.add_argument("--slippage-bps", type=float, help="of one side, beyond the spread")
    backtest.add_argument("--trials", type=int, help="variants that were tried before this one, and it")
    backtest.add_argument("--seed", type=int, help="of bootstrap and coins")
    take_defaults(backtest, BacktestOrder)
    backtest.add_argument(
        "--retrain-every", type=int, default=0, metavar="BARS", help="fit anew so often; default: never"
    )
    backtest.add_argument("--retrain-kind", metavar="KIND", help=f"what is fitted then; default {KIND}")
    backtest.add_argument("--param", action="append", default=[], metavar="KEY=VALUE", help="parameter of these fits")


def _add_optimize(optimize: argparse.ArgumentParser) -> None:
    data = optimize.add_mutually_exclusive_group(required=True)
    data.add_argument("--data", type=Path, help="file or folder of ticks or bars")
    data.add_argument("--resume", type=Path, metavar="DIR", help="go on with the study of this folder")
    optimize.add_argument("--model", default=KIND, help="kind of model")
    optimize.add_argument("--out", type=Path, default=Path("out/optimize"), help="folder of the study and the model")
    optimize.add_argument("--metric", choices=get_args(Metric), help="what is sought over the validation part")
    optimize.add_argument("--sampler", choices=get_args(Sampler), help="who chooses what is tried")
    optimize.add_argument("--pruner", choices=get_args(Pruner), help="who gives trials up")
    optimize.add_argument("--seed", type=int, help="of the search and its fits")
    own = take_defaults(optimize, TuneOrder)
    optimize.add_argument("--trials", type=int, help=f"how many to try in all; default {own['trials']}")
    optimize.add_argument("--seconds", type=float, help=f"how long the search may take; default {own['seconds']:g}")
    optimize.add_argument("--symbols", type=comma_list, metavar="A,B", help="only these symbols")
    optimize.add_argument("--param", action="append", default=[], metavar="KEY=VALUE", help="the same in every trial")
    space = "LOW..HIGH, 'LOW..HIGH log', [A, B] or keep"
    optimize.add_argument("--space", action="append", default=[], metavar="KEY=SPACE", help=space)


def _add_auto(auto: argparse.ArgumentParser) -> None:
    data = auto.add_mutually_exclusive_group(required=True)
    data.add_argument("--data", type=Path, help="file or folder of ticks or bars")
    data.add_argument("--resume", type=Path, metavar="DIR", help="go on with the run of this folder")
    auto.add_argument("--out", type=Path, default=Path("out/auto"), help="folder of what is tried, and of the model")
    auto.add_argument("--budget-s", type=float, metavar="S", help="how long it may take")
    auto.add_argument("--seed", type=int, help="of fits and searches")
    take_defaults(auto, AutoOrder)
    auto.add_argument("--kinds", type=comma_list, default=[], metavar="A,B", help="try these kinds, and no others")
    auto.add_argument("--name", default="auto", help="name of the model")
    auto.add_argument("--symbols", type=comma_list, metavar="A,B", help="only these symbols")


def _add_send(send: argparse.ArgumentParser) -> None:
    send.add_argument("command", help="`tickcast schema` lists them as command-NAME")
    send.add_argument("arguments", nargs="*", metavar="KEY=VALUE")
    send.add_argument(
        "--key-id", help="of the daemon's keys file; default: what --key-file is named, without its ending"
    )
    send.add_argument("--key-file", type=Path, required=True, metavar="FILE", help="what `tickcast keygen` wrote")
    send.add_argument("--audience", default="fleet", help="GROUP/SLOT for one daemon; default: %(default)s")
    send.add_argument(
        "--timeout", type=float, default=30.0, metavar="S", help="how long replies are waited for; default %(default)g"
    )
    send.add_argument("--json", action="store_true", help="all replies as one JSON object")


def _fit(args: argparse.Namespace, settings: Settings, origins: Origins) -> int:
    from tickcast.ui.fit_command import command

    return command(args, settings)


def _evaluate(args: argparse.Namespace, settings: Settings, origins: Origins) -> int:
    from tickcast.ui.evaluate_command import command

    return command(args, settings)


def _backtest(run: Run, args: argparse.Namespace, settings: Settings, origins: Origins) -> int:
    from tickcast.ui.backtest_command import command

    return int(run(lambda: command(args, settings)))


def _optimize(args: argparse.Namespace, settings: Settings, origins: Origins) -> int:
    from tickcast.ui.optimize_command import command

    return command(args, settings)


def _auto(args: argparse.Namespace, settings: Settings, origins: Origins) -> int:
    from tickcast.ui.auto_command import command

    return command(args, settings)


def _recommend(args: argparse.Namespace, settings: Settings, origins: Origins) -> int:
    from tickcast.ui.recommend_command import command

    return command(settings, args.data, args.symbols)


def _import(run: Run, args: argparse.Namespace, settings: Settings, origins: Origins) -> int:
    from tickcast.batch.by_hand.import_model import import_model
    from tickcast.clock import SystemClock

    what = {"kind": args.kind, "name": args.name, "params": pairs(args.param), "tags": args.tags}
    card = run(lambda: import_model(settings, args.path, **what, clock=SystemClock()))
    print(f"{card.name}@{card.version}  {card.digest}")
    return EXIT_OK


def _send(run: Run, args: argparse.Namespace, settings: Settings, origins: Origins) -> int:
    from tickcast.clock import SystemClock
    from tickcast.live.commands.keys import read_signer
    from tickcast.ui.send import SendRequest, make_args, print_replies, refuse_unknown_key, send

    request = SendRequest(
        args.command, make_args(args.command, args.arguments), args.audience, args.key_id or args.key_file.stem,
        read_signer(args.key_file, named_by="--key-file"), args.timeout,
    )  # fmt: skip
    refuse_unknown_key(settings, request)
    return print_replies(run(lambda: send(settings, request, clock=SystemClock())), as_json=args.json)


def _keygen(args: argparse.Namespace, settings: Settings, origins: Origins) -> int:
    from tickcast.ui.keygen import keygen

    sys.stdout.write(keygen(args.id, role=args.role, algorithm=args.algorithm, out=args.out))
    return EXIT_OK
