"""Official files survive import and export unchanged under all names; unsuitable ones are refused with the reason."""

import json
import pickle

import numpy as np
import pytest
import torch
import yaml

from model.config.data import AudioConfig
from model.errors import CheckpointFormatError
from model.vocoder.architectures import ARCHITECTURES, build_generator
from model.vocoder.folder import DESCRIPTION, GENERATOR, read_vocoder, write_vocoder
from model.vocoder.neural import NeuralVocoder
from model.vocoder.official import read_official, write_official
from model.vocoder.weights import fold_norms, load_weights, official_state

MEL = torch.randn(1, 80, 9, generator=torch.Generator().manual_seed(0))
NOISE = torch.randn(1, 64, 9, generator=torch.Generator().manual_seed(1))


def generate(kind, state, variant="xtiny"):
    generator = build_generator(kind, variant, AudioConfig()).eval()
    load_weights(generator, state, "here")
    with torch.no_grad():
        return generator(MEL, NOISE)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_official_files_survive_import_and_export(kind, make_weights, tmp_path):
    weights = make_weights(kind, discriminators=True)
    expected = generate(kind, weights.generator)
    first = write_official(tmp_path / "first", weights)
    taken = read_official(first[-1])
    assert (taken.kind, taken.variant, taken.audio, taken.steps) == (kind, "xtiny", weights.audio, 7)
    write_vocoder(tmp_path / "own", taken)
    again = read_official(write_official(tmp_path / "second", read_vocoder(tmp_path / "own"))[-1])
    torch.testing.assert_close(generate(kind, again.generator), expected, atol=1e-6, rtol=0)
    assert again.generator.keys() == weights.generator.keys()


def test_published_discriminators_are_imported_and_exported(make_weights, tmp_path, monkeypatch):
    """The layout of the official file, with one head only."""
    weights = make_weights("hifigan")
    weights.discriminators = {name: {"discriminators.0.conv_post.bias": torch.ones(1)} for name in ("mpd", "msd")}
    files = write_official(tmp_path, weights)
    assert [path.name for path in files] == ["config.json", "g_00000007", "do_00000007"]
    assert read_official(files[1]).discriminators == weights.discriminators


def _new_names(state):
    renamed = {"weight_g": "parametrizations.weight.original0", "weight_v": "parametrizations.weight.original1"}
    return {
        name.removesuffix(name.rpartition(".")[2]) + renamed.get(name.rpartition(".")[2], name.rpartition(".")[2]): t
        for name, t in state.items()
    }


def _folded(state, kind="hifigan"):
    generator = build_generator(kind, "xtiny", AudioConfig())
    load_weights(generator, state, "here")
    return fold_norms(generator).state_dict()


@pytest.mark.parametrize(
    ("rename", "tolerance"),
    [
        (dict, 0.0),
        (_new_names, 0.0),
        (lambda state: {f"module.{name}": tensor for name, tensor in state.items()}, 0.0),
        (_folded, 1e-6),
        (lambda state: {f"module.{name}": tensor for name, tensor in _folded(state).items()}, 1e-6),
    ],
    ids=["old", "new", "wrapped", "folded", "folded and wrapped"],
)
def test_normed_weights_are_read_under_all_names(rename, tolerance, make_weights):
    state = make_weights().generator
    expected = generate("hifigan", state)
    assert (generate("hifigan", rename(state)) - expected).abs().max() <= tolerance


def test_spectral_norm_is_exported_and_imported():
    one, other = (ARCHITECTURES["hifigan"].discriminators("v1")["msd"].discriminators[0].eval() for _ in range(2))
    state = official_state(one)
    assert {"convs.0.weight_orig", "convs.0.weight_u", "convs.0.weight_v", "convs.0.bias"} <= state.keys()
    load_weights(other, state, "here")
    x = torch.randn(1, 1, 2048)
    with torch.no_grad():
        torch.testing.assert_close(other(x)[0], one(x)[0])


def test_weights_of_the_old_weight_norm_of_torch_are_read():
    from torch.nn.utils import weight_norm

    generator = build_generator("hifigan", "xtiny", AudioConfig())
    with pytest.warns(FutureWarning):
        old = weight_norm(torch.nn.Conv1d(80, 16, 7, padding=3))
    state = official_state(generator) | {f"conv_pre.{name}": tensor for name, tensor in old.state_dict().items()}
    load_weights(generator, state, "here")
    torch.testing.assert_close(generator.conv_pre(MEL), old(MEL))


def test_folded_equals_unfolded(make_weights, settings):
    weights = make_weights()
    unfolded = generate("hifigan", weights.generator)[0, 0].numpy()
    assert np.abs(NeuralVocoder.from_weights(weights, settings())(MEL[0].T.numpy()) - unfolded).max() < 1e-5


def test_official_univnet_settings_are_refused_with_both_named(make_weights, tmp_path, audio):
    theirs = AudioConfig(sample_rate=24000, n_mels=100, fmax=12000)
    files = write_official(tmp_path, make_weights("univnet", audio=theirs))
    with pytest.raises(CheckpointFormatError) as refused:
        read_vocoder(files[0], audio)
    for part in ("sample_rate 24000 there, 22050 here", "n_mels 100 there, 80 here", "fmax 12000 there, 8000 here"):
        assert part in str(refused.value)
    assert "22050 Hz and 80 mel bands" in str(refused.value)


@pytest.fixture
def official_vocos(make_weights, tmp_path):
    """Config and weights of Vocos as the official program saves them, without the mel extractor."""
    return write_official(tmp_path / "official", make_weights("vocos"))


def test_an_exported_vocos_holds_what_the_official_program_loads(official_vocos):
    config, weights = (yaml.safe_load(official_vocos[0].read_text()), torch.load(official_vocos[1], weights_only=True))
    assert config["backbone"]["init_args"] == {"input_channels": 80, "dim": 16, "intermediate_dim": 32, "num_layers": 1}
    assert config["head"]["init_args"] == {"dim": 16, "n_fft": 1024, "hop_length": 256, "padding": "same"}
    assert config["feature_extractor"]["init_args"]["padding"] == "same"
    names = {"feature_extractor.mel_spec.spectrogram.window", "feature_extractor.mel_spec.mel_scale.fb"}
    assert names | {"head.istft.window", "head.out.weight", "backbone.convnext.0.gamma"} <= weights.keys()
    assert weights["feature_extractor.mel_spec.mel_scale.fb"].shape == (513, 80)


def test_a_vocos_of_centered_frames_or_other_filters_is_refused(official_vocos):
    """As the published weights are: 24 kHz, HTK's mel scale, frames centered on multiples of the hop."""
    config, weights = official_vocos
    settings, content = yaml.safe_load(config.read_text()), torch.load(weights, weights_only=True)
    settings["feature_extractor"]["init_args"]["padding"] = "center"
    config.write_text(yaml.safe_dump(settings))
    with pytest.raises(CheckpointFormatError, match=r"padding: center there, same here.*22050 Hz with 80 mel bands"):
        read_official(weights)
    settings["feature_extractor"]["init_args"]["padding"] = "same"
    config.write_text(yaml.safe_dump(settings))
    content["feature_extractor.mel_spec.mel_scale.fb"] *= 2
    torch.save(content, weights)
    with pytest.raises(CheckpointFormatError, match="its mel filters are others"):
        read_official(weights)


def test_vocos_without_readable_settings_is_refused(official_vocos):
    config, weights = official_vocos
    config.write_text("backbone: 3")
    with pytest.raises(CheckpointFormatError, match=r"config\.yaml: not the settings of a Vocos model"):
        read_official(weights)
    config.unlink()
    with pytest.raises(CheckpointFormatError, match=r"no config\.yaml in its folder"):
        read_official(weights)


def test_vocos_settings_without_our_own_keys_describe_the_mel_of_the_official_extractor(make_weights, tmp_path):
    """The official extractor reaches from 0 Hz to half the sample rate, with a window of the transform's length."""
    audio = AudioConfig(fmax=11025)
    config, weights = write_official(tmp_path, make_weights("vocos", audio=audio))
    settings = yaml.safe_load(config.read_text())
    del settings["mel"], settings["steps"]
    config.write_text(yaml.safe_dump(settings))
    assert read_official(weights).audio == audio


def test_another_variant_or_type_is_refused(make_weights, tmp_path, audio):
    folder = write_vocoder(tmp_path / "v", make_weights())
    with pytest.raises(CheckpointFormatError, match=r"hifigan xtiny, but the settings say v2; set vocoder\.variant"):
        read_vocoder(folder, audio, "hifigan", "v2")
    with pytest.raises(CheckpointFormatError, match=r"a hifigan vocoder, but vocoder\.type is univnet"):
        read_vocoder(folder, audio, "univnet")


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_a_truncated_file_is_refused(kind, make_weights, tmp_path):
    file = write_official(tmp_path, make_weights(kind))[-1]
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(CheckpointFormatError, match=f"{file.name}: truncated, damaged"):
        read_official(file)


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    class Trap:
        def __reduce__(self):
            return (print, ("executed",))

    (tmp_path / "g_1").write_bytes(pickle.dumps({"generator": Trap()}))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointFormatError, match="not a plain checkpoint"):
        read_official(tmp_path / "g_1")


def test_hifigan_without_its_settings_is_refused(make_weights, tmp_path):
    file = write_official(tmp_path, make_weights())[1]
    (tmp_path / "config.json").unlink()
    with pytest.raises(CheckpointFormatError, match=r"no config\.json in its folder"):
        read_official(file)


def test_invalid_settings_and_discriminators_are_refused(make_weights, tmp_path):
    file = write_official(tmp_path, make_weights())[1]
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"sampling_rate": "fast"}))
    with pytest.raises(CheckpointFormatError, match=r"config\.json: unknown mel settings \(sample_rate: "):
        read_official(file)
    (tmp_path / "config.json").write_text(json.dumps(config))
    torch.save({"mpd": {}}, tmp_path / "do_00000007")
    with pytest.raises(CheckpointFormatError, match="do_00000007: holds something other than weights"):
        read_official(file)


def test_univnet_settings_are_data_never_code(make_weights, tmp_path):
    file = write_official(tmp_path, make_weights("univnet"))[0]
    content = torch.load(file, weights_only=True)
    assert yaml.safe_load(content["hp_str"])["audio"]["n_mel_channels"] == 80
    content["hp_str"] = "audio: !!python/object/apply:os.system [echo]"
    torch.save(content, file)
    with pytest.raises(CheckpointFormatError, match="hp_str"):
        read_official(file)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / GENERATOR).write_bytes(b"short"), "not the weights"),
        (lambda folder: (folder / GENERATOR).unlink(), "missing"),
        (lambda folder: (folder / DESCRIPTION).write_text("{"), "damaged"),
        (lambda folder: (folder / DESCRIPTION).unlink(), r"no vocoder\.json"),
        (lambda folder: (folder / DESCRIPTION).write_text(json.dumps({"format": 99})), "another version"),
    ],
)
def test_a_damaged_folder_is_refused(damage, message, make_weights, tmp_path):
    folder = write_vocoder(tmp_path / "v", make_weights())
    damage(folder)
    with pytest.raises(CheckpointFormatError, match=message):
        read_vocoder(folder)


def test_layers_that_do_not_match_are_named(make_weights):
    state = make_weights().generator
    state["extra.weight_g"] = state.pop("conv_post.bias")
    with pytest.raises(CheckpointFormatError, match=r"lacks conv_post\.bias; has the unknown extra\.weight_g"):
        generate("hifigan", state)
