"""Resolution of settings: precedence, origins, errors, and shipped presets."""

from pathlib import Path

import pytest
import yaml

from model.config import settings_hash
from model.config.resolution import (
    ConfigError,
    base_layers,
    batch_range,
    flatten,
    known_keys,
    nest,
    presets,
    resolve,
    subset,
)
from model.config.schema import Config

ROOT = Path(__file__).parents[3]
SIZES, LEVELS = presets()


def write(path: Path, tree: dict) -> Path:
    path.write_text(yaml.safe_dump(tree), "utf-8")
    return path


def test_precedence_is_default_size_level_params_file_command_line(tmp_path):
    params = write(tmp_path / "params.yaml", {"training": {"batch_size": 12, "max_steps": 700, "log_interval": 5}})
    file = write(tmp_path / "mine.yaml", {"training": {"batch_size": 13, "max_steps": 800}})
    resolved = resolve(params, file, {"training.batch_size": 14})
    training = resolved.config.training
    assert (training.batch_size, training.max_steps, training.log_interval) == (14, 800, 5)
    assert resolved.origins["training.batch_size"] == "command line"
    assert resolved.origins["training.max_steps"] == str(file)
    assert resolved.origins["training.log_interval"] == str(params)
    assert resolved.origins["training.learning_rate"] == "model size tiny"
    assert resolved.origins["training.gradient_clip_norm"] == "level enhanced"
    assert resolved.origins["audio.n_mels"] == "default"


def test_the_users_value_wins_over_every_level():
    for level in LEVELS:
        resolved = resolve(None, None, {"optimization_level": level, "training.learning_rate_schedule": "constant"})
        assert resolved.config.training.learning_rate_schedule == "constant"


def test_the_size_on_the_command_line_chooses_the_preset(tmp_path):
    params = write(tmp_path / "params.yaml", {"model_size": "tiny"})
    assert (
        resolve(params, None, {"model_size": "normal"}).config.model.hidden_dim
        == SIZES["normal"]["model"]["hidden_dim"]
    )


@pytest.mark.parametrize("key", ["training.gradient_clip_norm", "loss.forward_sum_blank_logprob", "corpus.path"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_are_finite(key, value):
    with pytest.raises(ConfigError, match=key):
        resolve(None, None, {key: value})


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"validation.min_seconds": 20.0}, "min_seconds .* not below validation.max_seconds"),
        ({"validation.max_characters_per_second": 3.0}, "not below validation.max_characters_per_second"),
        ({"features.pitch_fmin": 600.0}, "pitch_fmin .* not below features.pitch_fmax"),
        ({"audio.hop_length": 1025}, "hop_length .* longer than audio.win_length"),
    ],
)
def test_empty_ranges_are_refused(changes, reason):
    with pytest.raises(ConfigError, match=reason):
        resolve(None, None, changes)


def test_differences_show_default_value_and_origin():
    differences = resolve(None, None, {"training.batch_size": 9}).differences()
    assert differences["training.batch_size"] == (16, 9, "command line")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("level", LEVELS)
def test_every_size_and_level_loads(size, level):
    config = resolve(None, None, {"model_size": size, "optimization_level": level}).config
    low, high = batch_range(size)
    assert low <= config.training.batch_size <= high


def test_every_level_changes_something():
    configs = {level: resolve(None, None, {"optimization_level": level}).config for level in LEVELS}
    plain = {level: config.model_dump(exclude={"optimization_level"}) for level, config in configs.items()}
    for level, tree in plain.items():
        assert all(tree != other for name, other in plain.items() if name != level)


@pytest.mark.parametrize("path", sorted(ROOT.glob("*params*.yaml")), ids=lambda path: path.name)
def test_every_shipped_settings_file_loads(path):
    resolve(path)


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("mel_loss_weight", "loss.mel_loss_weight"),
        ("training.bach_size", "training.batch_size"),
        ("model_sise", "model_size"),
    ],
)
def test_unknown_key_is_refused_with_the_nearest_known_one(key, expected):
    with pytest.raises(ConfigError, match=f"unknown setting `{key}`; did you mean `{expected}`"):
        resolve(None, None, {key: 1})


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"training.batch_size": "many"}, "training.batch_size"),
        ({"training.batch_size": 0}, "training.batch_size"),
        ({"audio.fmax": 20000}, "audio.fmax"),
        ({"model.kernel_size": 4}, "odd"),
        ({"model.hidden_dim": 30}, "multiple"),
        ({"model_size": "huge"}, "xtiny, tiny"),
        ({"optimization_level": "best"}, "enhanced"),
    ],
)
def test_wrong_values_name_the_key_and_the_rule(overrides, message):
    with pytest.raises(ConfigError, match=message):
        resolve(None, None, overrides)


def test_an_error_about_several_settings_prints_no_others():
    with pytest.raises(ConfigError) as caught:
        resolve(None, None, {"launch.processes": 3})
    assert str(caught.value).startswith("launch.launcher = inline trains in one process, but processes = 3")
    assert "{" not in str(caught.value)


def test_a_mapping_replaces_the_default_and_that_of_earlier_layers(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("corpus: {generated_voices: {de: 3, fa: 1}}")
    assert resolve().config.corpus.generated_voices == {"en": 2, "fa": 1}
    given = resolve(path)
    assert given.config.corpus.generated_voices == {"de": 3, "fa": 1}
    assert given.origins["corpus.generated_voices"] == str(path)
    over = resolve(path, None, {"corpus.generated_voices": {"it": 1}})
    assert over.config.corpus.generated_voices == {"it": 1}
    assert over.differences()["corpus.generated_voices"] == ({"en": 2, "fa": 1}, {"it": 1}, "command line")
    assert nest(flatten(over.config.model_dump())) == over.config.model_dump()


@pytest.mark.parametrize(
    "value", ["de", {"de": -1}, {"de": True}, {"de": 1.5}, {"de": "two"}, {"../de": 1}, {False: 1}, [["de", 1]]]
)
def test_a_mapping_of_another_form_is_refused_by_name(value):
    with pytest.raises(ConfigError, match=r"command line: `corpus\.generated_voices"):
        resolve(None, None, {"corpus.generated_voices": value})


@pytest.mark.parametrize("key", ["corpus.english_voices", "corpus.generated_voices.de"])
def test_voices_are_given_by_the_mapping_alone(key):
    with pytest.raises(ConfigError, match=f"unknown setting `{key}`; did you mean `corpus.generated_voices`"):
        resolve(None, None, {key: 1})


@pytest.mark.parametrize("content", [b"training: [", b"\xff\xfe", b"- a\n- b\n"])
def test_unreadable_file_is_named(tmp_path, content):
    path = tmp_path / "broken.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"broken\.yaml"):
        resolve(path)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nothing\.yaml: no such file"):
        resolve(tmp_path / "nothing.yaml")


CANONICAL = {
    "optimization_level": "enhanced",
    "training.gradient_clip_norm": 0.5,
    "training.gradient_clip_value": 1.0,
    "training.adaptive_weight_update_interval": 50,
    "training.use_mixed_precision": True,
    "model.use_duration_predictor": True,
    "model.duration_predictor_layers": 3,
    "model.duration_predictor_hidden_dim": 256,
    "model.speaker_embedding_dim": 256,
    "model.enable_gst": True,
    "model.gst_num_style_tokens": 10,
    "model.gst_num_heads": 4,
    "model.gst_style_token_dim": 128,
    "model.enable_prosody_prediction": True,
    "model.vae_latent_dim": 16,
    "features.speaker_encoder_model": "resemblyzer",
    "loss.guided_attention_sigma": 0.2,
    "loss.guided_attention_loss_weight": 1.0,
    "loss.contrastive_loss_weight": 0.5,
    "loss.contrastive_loss_temperature": 0.07,
    "audio.n_mels": 80,
    "audio.n_fft": 1024,
    "audio.hop_length": 256,
    "audio.win_length": 1024,
    "audio.fmin": 0.0,
    "audio.fmax": 8000.0,
}
"""Values that the evaluation document recommends, the defaults of every size from `small` on."""


@pytest.mark.parametrize("size", ["small", "normal", "big"])
def test_the_advised_values_are_the_defaults(size):
    values = flatten(resolve(None, None, {"model_size": size}).config.model_dump())
    assert {key: values[key] for key in CANONICAL} == CANONICAL
    assert 2.5 <= values["loss.mel_loss_weight"] <= 5.0
    assert 0.5 <= values["loss.kl_loss_weight"] <= 2.0


def test_sizes_have_the_advised_batch_ranges():
    ranges = {size: batch_range(size) for size in SIZES if size != "xtiny"}
    assert ranges == {"tiny": (8, 16), "small": (16, 32), "normal": (32, 64), "big": (16, 32)}


def test_subset_has_only_the_named_sections_and_loads_again():
    config = resolve(None, None, {"training.batch_size": 8}).config
    data = subset(config, "training", "seed")
    assert set(data) == {"training", "seed"}
    assert Config.model_validate(data).training == config.training


def test_settings_hash_depends_on_values_not_on_order():
    assert settings_hash({"a": 1, "b": 2}) == settings_hash({"b": 2, "a": 1})
    assert settings_hash({"a": 1}) != settings_hash({"a": 2})
    assert settings_hash({"a": 1}, {"b": 2}) != settings_hash({"a": 1}, {"b": 3})  # every one of several counts


def test_every_key_of_the_schema_has_its_section_described():
    assert all("." in key or key in ("model_size", "optimization_level", "seed") for key in known_keys())


BASE = resolve(overrides={"model_size": "tiny", "model.ffn_dim": 96}).config.model_dump()


def test_sizes_come_from_the_base_unless_they_are_given():
    plain = resolve(derived=base_layers(BASE, 0))
    assert plain.config.model.ffn_dim == 96
    assert plain.origins["model.ffn_dim"] == "base voice"
    assert resolve(overrides={"model.ffn_dim": 32}, derived=base_layers(BASE, 0)).config.model.ffn_dim == 32
    assert plain.config.training.max_steps == resolve().config.training.max_steps


def test_the_less_speech_the_fewer_steps_at_a_lower_learning_rate_and_the_closer_to_the_base():
    found = [resolve(derived=base_layers(BASE, seconds)).config.training for seconds in (10, 60, 300, 36000)]
    assert sorted({item.max_steps for item in found}) == [item.max_steps for item in found]
    rates = [item.learning_rate for item in found]
    assert rates[0] <= rates[1] < rates[2] == rates[3]
    shares = [item.base_interpolation for item in found]
    assert shares[0] > shares[1] > shares[2] > shares[3] == 0
    assert found[3].max_steps == resolve().config.training.max_steps
    own = resolve(overrides={"training.learning_rate": 1e-2}, derived=base_layers(BASE, 10)).config.training
    assert own.learning_rate == 1e-2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 3000, "nested more than 10 levels"),
        ("corpus: {name: " + "[" * 3000 + "]" * 3000 + "}", "nested more than 10 levels"),
        ("a: &a [x]\nb: &b [*a, *a]\nc: [*b, *b]", r"odd\.yaml:2: alias `\*a`"),
        ("training: {learning_rate: yes}", "learning_rate.*is true"),
        ("training: {max_steps: on}", "max_steps.*is true"),
        ("audio: {n_fft: 1.0e+20}", "n_fft.*larger than any setting"),
        ("audio: {n_mels: 100000000}", "n_mels.*less than or equal to 1024"),
        ("1: {2: 3}", "unknown setting `1.2`"),
        ("seed: 2020-13-45", "not a readable YAML file"),
        ("seed: 1 #" + "x" * 1_000_000, "is it a settings file"),
    ],
    ids=lambda value: value[:30],
)
def test_odd_settings_files_are_refused_in_one_line(tmp_path, text, message):
    path = tmp_path / "odd.yaml"
    path.write_text(text, "utf-8")
    with pytest.raises(ConfigError, match=message) as caught:
        resolve(path)
    assert len(str(caught.value)) < 500
