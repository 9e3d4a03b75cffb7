"""The command `train` makes a combination of models of the registry, and a live daemon forecasts with it."""

from pathlib import Path

import msgspec
import pytest

from livekit import running
from modelkit import market, model_settings
from tickcast.batch.synth import json_messages
from tickcast.errors import CommandRefused
from tickcast.live.commands.arguments import parse


@pytest.mark.slow
async def test_members_are_named_as_in_the_registry_and_the_combination_answers_at_once(tmp_path: Path) -> None:
    settings = model_settings("time", tmp_path)
    async with running(settings) as live:
        await live.send([message for _, message in json_messages(market()[0])][-4000:], chunk=1000)
        await live.stored()
        for name in ("a", "b"):
            reply = await live.daemon.command("train", kind="ridge", name=name, params={"rows": 100 + ord(name)})
            assert reply.ok, reply.error
        models = live.daemon.session.commands.serving_models.models
        both = {"members": ["a", (await models.resolve("b")).digest[:12]], "method": "weighted"}
        reply = await live.daemon.command("train", kind="ensemble", name="both", params=both)
        assert reply.ok, reply.error
        cards = [await models.resolve(name) for name in ("a", "b", "both")]
        assert cards[2].model_params["members"] == [cards[0].digest, cards[1].digest]
        assert [one["name"] for one in msgspec.to_builtins(reply.result)["metrics"]["members"]] == ["a", "b"]
        symbol = live.daemon.session.serving.symbols.names()[0]
        reply = await live.daemon.command("forecast", symbols=[symbol], model="both")
        assert reply.result["forecasts"][0]["model"] == "both"
        reply = await live.daemon.command("train", kind="ensemble", params={"members": ["a", "nobody"]})
        assert (reply.ok, reply.error_code) == (False, "unknown_model")


@pytest.mark.parametrize("members", ["a", [1], [""], ["a/../b"], ["a"] * 17])
def test_what_names_no_members_is_refused(members: object) -> None:
    with pytest.raises(CommandRefused, match="members"):
        parse("train", {"params": {"members": members}})
