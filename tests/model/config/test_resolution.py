"""Settings: precedence, provenance, refusals, and that every shipped preset loads."""

from pathlib import Path

import pytest
import yaml

from model.config import Config, ConfigError, batch_range, resolve, settings_hash, subset
from model.config.resolution import known_keys, presets

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


@pytest.mark.parametrize("content", [b"training: [", b"\xff\xfe", b"- a\n- b\n"])
def test_unreadable_file_is_named(tmp_path, content):
    path = tmp_path / "broken.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"broken\.yaml"):
        resolve(path)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nothing\.yaml: no such file"):
        resolve(tmp_path / "nothing.yaml")


def test_subset_holds_only_what_a_step_is_told_and_loads_again():
    config = resolve(None, None, {"training.batch_size": 8}).config
    data = subset(config, "training", "seed")
    assert set(data) == {"training", "seed"}
    assert Config.model_validate(data).training == config.training


def test_settings_hash_depends_on_values_not_on_order():
    assert settings_hash({"a": 1, "b": 2}) == settings_hash({"b": 2, "a": 1})
    assert settings_hash({"a": 1}) != settings_hash({"a": 2})


def test_every_key_of_the_schema_has_its_section_described():
    assert all("." in key or key in ("model_size", "optimization_level", "seed") for key in known_keys())
