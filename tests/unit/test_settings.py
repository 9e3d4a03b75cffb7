"""Settings: layers win in order, every mistake is one readable refusal, and each value knows where it came from."""

import pytest

from tickcast.errors import EXIT_REFUSED, BadSettings
from tickcast.settings import Settings, load


@pytest.fixture
def file(tmp_path):
    def write(text, name="settings.toml"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def refusal(*files, overrides=None, environ=None):
    with pytest.raises(BadSettings) as caught:
        load(list(files), overrides, environ or {})
    assert caught.value.exit_code == EXIT_REFUSED
    return str(caught.value)


def test_without_any_layer_all_defaults_hold_and_nothing_has_an_origin():
    settings, origins = load(environ={})
    assert settings == Settings()
    assert origins == {}


def test_a_later_file_wins_over_an_earlier_one_key_by_key(file):
    first = file("[bars]\nevery_ms = 10\nlateness_ms = 5", "first.toml")
    second = file("[bars]\nevery_ms = 20", "second.toml")
    settings, origins = load([first, second], environ={})
    assert (settings.bars.every_ms, settings.bars.lateness_ms) == (20, 5)
    assert origins == {"bars.every_ms": str(second), "bars.lateness_ms": str(first)}


def test_environment_wins_over_files_and_the_command_line_over_both(file):
    path = file("[bars]\nevery_ms = 10\nlateness_ms = 5\nevery_ticks = 3")
    environ = {"TICKCAST_BARS__EVERY_MS": "20", "TICKCAST_BARS__LATENESS_MS": "6", "PATH": "/bin"}
    settings, origins = load([path], {"bars.every_ms": "30"}, environ)
    assert (settings.bars.every_ms, settings.bars.lateness_ms, settings.bars.every_ticks) == (30, 6, 3)
    assert origins["bars.every_ms"] == "command line"
    assert origins["bars.lateness_ms"] == "environment"
    assert origins["bars.every_ticks"] == str(path)


def test_the_environment_of_the_process_is_read_when_none_is_given(monkeypatch):
    monkeypatch.setenv("TICKCAST_WINDOW__LOOKBACK", "48")
    assert load()[0].window.lookback == 48


def test_text_on_the_command_line_needs_no_quotes_and_lists_are_toml():
    overrides = {"bars.kind": "tick", "forecast.quantiles": "[0.1, 0.5, 0.9]", "runtime.deterministic": "true"}
    settings, _ = load(None, overrides, {})
    assert settings.bars.kind == "tick"
    assert settings.forecast.quantiles == [0.1, 0.5, 0.9]
    assert settings.runtime.deterministic is True


def test_an_unknown_key_is_refused_by_name_with_the_file_that_holds_it(file):
    path = file("[bars]\nevery_msec = 10")
    message = refusal(path)
    assert "bars.every_msec: unknown setting" in message
    assert str(path) in message


def test_an_unknown_section_is_refused_by_name(file):
    assert "barrs: unknown setting" in refusal(file("[barrs]\nevery_ms = 1"))


def test_an_unknown_key_from_environment_or_command_line_names_its_origin():
    assert "[environment]" in refusal(environ={"TICKCAST_STORE__PATHS": "x"})
    assert "[command line]" in refusal(overrides={"store.paths": "x"})


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("bars.evry_ms", "bars.every_ms"), ("bars.ticks", "bars.every_ticks"), ("barrs", "bars"),
     ("kafka.security.usrname", "kafka.security.username"), ("bars.lookback", "window.lookback"), ("store.xyzzy", "")],
)  # fmt: skip
def test_an_unknown_key_names_the_nearest_that_there_is(wrong, right):
    message = refusal(overrides={wrong: "1"})
    assert (f"did you mean {right}?" in message) if right else ("did you mean" not in message)


@pytest.mark.parametrize(
    ("variable", "right"),
    [("TICKCAST_BARS_EVERY_MS", "TICKCAST_BARS__EVERY_MS"), ("TICKCAST_STORE_PAHT", "TICKCAST_STORE__PATH"),
     ("tickcast_kafka_security_username", "TICKCAST_KAFKA__SECURITY__USERNAME"), ("TICKCAST_", ""),
     ("TICKCAST_QQQQ", "")],
)  # fmt: skip
def test_a_variable_that_names_no_setting_is_refused_with_the_right_name(variable, right):
    message = refusal(environ={variable: "1000"})
    assert variable in message
    assert (f"did you mean {right}?" in message) if right else ("did you mean" not in message)
    load(environ={variable.replace("TICKCAST", "OTHER").replace("tickcast", "other"): "1"})


def test_a_contradiction_is_told_in_our_words_alone():
    assert "Value error" not in refusal(overrides={"kafka.slot": "3", "forecast.quantiles": "[0.1]"})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("bars.every_ms", "0"),
        ("bars.every_ms", "1.5"),
        ("bars.every_ms", "soon"),
        ("bars.kind", "minute"),
        ("bars.every_size", "0.0"),
        ("bars.every_size", "-1"),
        ("window.lookback", "-1"),
        ("uncertainty.gamma", "0.6"),
        ("store.path", "3"),
        ("forecast.quantiles", "[0.5, 1.5]"),
        ("codec.kind", "xml"),
        ("model.ladder", '["prophet"]'),
        ("bus.kind", "carrier-pigeon"),
    ],
)
def test_a_value_out_of_bounds_or_of_the_wrong_kind_is_refused_with_its_key(key, value):
    assert key in refusal(overrides={key: value})


@pytest.mark.parametrize(
    ("overrides", "word"),
    [
        ({"forecast.quantiles": "[0.9, 0.5]"}, "ascending"),
        ({"forecast.quantiles": "[0.5, 0.5]"}, "ascending"),
        ({"forecast.quantiles": "[0.1, 0.9]"}, "0.5"),
        ({"score.horizons": "[1, 13]"}, "forecast.horizon"),
        ({"features.future": '["time_of_day"]', "bars.kind": "tick"}, "features.future"),
        ({"bars.calendar": "hours.toml", "bars.kind": "volume"}, "bars.calendar"),
        ({"control.keys_file": "keys.toml", "bus.kind": "mqtt"}, "MQTT carries no commands"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(overrides, word):
    assert word in refusal(overrides=overrides)


def test_several_mistakes_are_named_at_once():
    message = refusal(overrides={"bars.every_ms": "0", "store.pth": "x"})
    assert "bars.every_ms" in message
    assert "store.pth" in message


def test_a_missing_file_is_refused_by_name(tmp_path):
    assert "absent.toml" in refusal(tmp_path / "absent.toml")


@pytest.mark.parametrize("content", [b"[bars\nevery_ms = 1", b"bars = ", b"\xff\xfe[bars]", b"[bars]\na = 1\na = 2"])
def test_a_file_that_is_no_toml_is_refused_by_name(tmp_path, content):
    path = tmp_path / "broken.toml"
    path.write_bytes(content)
    assert "broken.toml is not valid TOML" in refusal(path)


def test_a_section_that_is_given_as_a_value_is_refused():
    assert "bars" in refusal(overrides={"bars": "3"})


def test_a_list_of_feature_tables_keeps_each_plugin_s_own_parameters(file):
    path = file(
        '[[features.set]]\nkind = "rsi"\nperiod = 14\n'
        '[[features.set]]\nkind = "lags"\nat = [1, 2, 7]\nnormalization = "zscore"\n'
    )
    first, second = load([path], environ={})[0].features.set
    assert (first.kind, first.normalization, first.model_dump()["period"]) == ("rsi", "none", 14)
    assert (second.normalization, second.model_dump()["at"]) == ("zscore", [1, 2, 7])


def test_a_feature_table_without_a_kind_is_refused_by_its_place(file):
    assert "features.set.0.kind" in refusal(file("[[features.set]]\nperiod = 14"))


def test_codec_keys_of_one_topic_override_only_what_they_name(file):
    path = file(
        '[codec]\ntime_unit = "ms"\n[codec.topics."binance.trades"]\npreset = "binance-trade"\nsymbol_prefix = "B:"\n'
        '[codec.topics.other.fields]\nprice = "p"\n'
    )
    codec = load([path], environ={})[0].codec
    assert codec.time_unit == "ms"
    assert codec.topics["binance.trades"].preset == "binance-trade"
    assert codec.topics["binance.trades"].time_unit is None
    assert codec.topics["other"].fields.price == "p"
    assert codec.topics["other"].fields.symbol == "symbol"


def test_an_unknown_codec_key_of_one_topic_is_refused(file):
    assert "codec.topics.t.prest" in refusal(file('[codec.topics.t]\nprest = "default"'))


def test_settings_cannot_be_changed_once_loaded():
    settings, _ = load(environ={})
    with pytest.raises(ValueError, match="frozen"):
        settings.bars.every_ms = 5


def test_scored_horizons_double_up_to_the_last_unless_they_are_given():
    assert load(None, {"forecast.horizon": "12"}, {})[0].scored_horizons() == [1, 2, 4, 8, 12]
    assert load(None, {"forecast.horizon": "8"}, {})[0].scored_horizons() == [1, 2, 4, 8]
    assert load(None, {"forecast.horizon": "1"}, {})[0].scored_horizons() == [1]
    assert load(None, {"score.horizons": "[12, 3, 3]"}, {})[0].scored_horizons() == [3, 12]
