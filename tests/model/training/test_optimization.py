"""Weight decay by kind of parameter, and the decay of the moving average."""

import pytest
import torch
from torch import nn

from model.acoustic.model import AcousticModel, ModelDimensions
from model.config.resolution import resolve
from model.loop.ema import ExponentialAverage
from model.training.optimization import make_optimizer

DIMENSIONS = ModelDimensions(
    num_symbols=20, num_stresses=3, num_languages=2, speaker_vector_dim=256, n_mels=80, mel_mean=-5.0, mel_std=2.0
)


@pytest.fixture
def model() -> AcousticModel:
    settings = {"model_size": "xtiny", "model.enable_gst": True, "model.use_variational_encoder": True}
    return AcousticModel(resolve(None, None, settings).config.model, DIMENSIONS)


def test_decay_shrinks_the_weights_of_layers_and_spares_embeddings_norms_and_biases(model):
    settings = resolve(None, None, {"training.weight_decay": 0.2, "training.aligner_learning_rate_scale": 3.0}).config
    for parameter in model.parameters():
        nn.init.constant_(parameter, 1.0)
        parameter.grad = torch.zeros_like(parameter)  # decay alone moves
    optimizer = make_optimizer(model, settings.training)
    for group in optimizer.param_groups:
        group["lr"] = 0.1 * group["learning_rate_scale"]
    optimizer.step()

    layers = (nn.Linear, nn.Conv1d, nn.Conv2d)  # the model's own convolution is a linear layer
    seen = {"embedding": 0, "norm": 0, "layer": 0}
    for path, module in model.named_modules():
        scale = 3.0 if path.startswith("aligner.") else 1.0
        if isinstance(module, nn.Embedding):
            seen["embedding"] += 1
            assert bool((module.weight == 1).all()), path
        elif isinstance(module, nn.LayerNorm):
            seen["norm"] += 1
            assert bool((module.weight == 1).all()), path
            assert bool((module.bias == 1).all()), path
        elif isinstance(module, layers):
            assert module.bias is None or bool((module.bias == 1).all()), path
            if "embedding" not in path:
                seen["layer"] += 1
                torch.testing.assert_close(
                    module.weight.detach(), torch.full_like(module.weight, 1 - 0.1 * scale * 0.2), msg=path
                )
    assert seen["embedding"] == 3  # symbols, stresses, languages
    assert min(seen.values()) > 2


def test_every_parameter_is_optimized_once(model):
    optimizer = make_optimizer(model, resolve(None, None, {}).config.training)
    optimized = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    assert sorted(optimized) == sorted(id(parameter) for parameter in model.parameters())


def constant(value: float) -> nn.Module:
    """Returns a layer with one weight of this value."""
    module = nn.Linear(1, 1, bias=False)
    nn.init.constant_(module.weight, value)
    return module


def averaged(decay: float, steps: int) -> float:
    """Returns the average, after some steps, of a weight that changed from 0 to 1 before the first."""
    average = ExponentialAverage(constant(0.0), decay)
    for step in range(steps):
        average.update(constant(1.0), step)
    return float(average.state_dict()["weight"])


def test_the_average_of_a_short_run_has_left_the_initial_weights():
    """The decay starts at 0.1 and rises; at a constant 0.999, 98 % would be initial weights after twenty steps."""
    assert averaged(0.999, 1) == pytest.approx(0.9)
    assert averaged(0.999, 2) == pytest.approx(1 - 0.1 * 2 / 11)
    assert averaged(0.999, 20) > 0.9999


def test_the_average_of_a_long_run_reaches_as_far_as_its_decay():
    average = ExponentialAverage(constant(0.0), 0.9)
    for step in range(1000, 1010):
        average.update(constant(1.0), step)
    assert float(average.state_dict()["weight"]) == pytest.approx(1 - 0.9**10)


def test_without_decay_the_average_is_the_last_weight():
    assert averaged(0.0, 1) == 1.0


@pytest.mark.parametrize("fails", [False, True])
def test_the_averaged_weights_are_in_the_model_inside_the_block_only(fails):
    average, module = ExponentialAverage(constant(3.0), 0.5), constant(7.0)
    try:
        with average.applied_to(module):
            assert float(module.weight) == 3.0
            if fails:
                raise KeyError
    except KeyError:
        assert fails
    assert float(module.weight) == 7.0
    assert float(average.state_dict()["weight"]) == 3.0


def test_a_loaded_average_is_a_copy():
    average, state = ExponentialAverage(constant(3.0), 0.5), {"weight": torch.tensor([[5.0]])}
    average.load_state_dict(state)
    average.update(constant(1.0), 100)
    assert float(state["weight"]) == 5.0
    assert float(average.state_dict()["weight"]) == pytest.approx(3.0)
