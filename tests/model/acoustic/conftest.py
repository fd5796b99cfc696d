"""Small models and batches for the properties of the acoustic model."""

import pytest
import torch

from model.acoustic.batch import Batch
from model.acoustic.model import AcousticModel, ModelDimensions
from model.config.resolution import resolve

DIMENSIONS = ModelDimensions(
    num_symbols=20, num_stresses=3, num_languages=2, speaker_vector_dim=256, n_mels=80, mel_mean=-5.0, mel_std=2.0
)


FEATURES = {
    "plain": {},
    "no prosody": {"enable_prosody_prediction": False},
    "two frames a step": {"frames_per_step": 2},
    "three frames a step": {"frames_per_step": 3},
    "location": {"use_location_attention": True},
    "forward attention": {"use_forward_attention": True},
    "masked": {"use_forward_attention": True, "forward_attention_mask": True},
    "style tokens": {"enable_gst": True},
    "latent": {"use_variational_encoder": True},
    "own speaker encoder": {"use_pretrained_speaker_encoder": False, "use_speaker_consistency_loss": True},
    "everything": {
        "use_location_attention": True,
        "use_forward_attention": True,
        "enable_gst": True,
        "use_variational_encoder": True,
        "use_pretrained_speaker_encoder": False,
        "use_speaker_consistency_loss": True,
        "frames_per_step": 2,
    },
}
"""Feature -> settings of `model` that enable it; properties of the model must hold with each."""


@pytest.fixture(params=FEATURES)
def feature(request) -> dict:
    """Settings that enable each feature in turn."""
    return FEATURES[request.param]


@pytest.fixture
def make_model():
    """Returns a function from settings of `model` to an xtiny model in evaluation mode.

    Its modulation weights and gates are not at their (nearly) zero initialization, so that conditions have an effect.
    """

    def build(**settings):
        overrides = {"model_size": "xtiny", **{f"model.{key}": value for key, value in settings.items()}}
        torch.manual_seed(1)
        model = AcousticModel(resolve(None, None, overrides).config.model, DIMENSIONS)
        for name, parameter in model.named_parameters():
            if "modulation" in name:
                torch.nn.init.normal_(parameter, std=0.1)
            if name.endswith("gate"):
                torch.nn.init.ones_(parameter)
        return model.eval()

    return build


def _make_batch(lengths=((5, 20), (9, 41)), seed=0):
    """Returns a batch of random clips with the given (tokens, frames) each."""
    generator = torch.Generator().manual_seed(seed)
    token_lengths, mel_lengths = (torch.tensor(values) for values in zip(*lengths, strict=True))
    size, tokens, frames = len(lengths), int(token_lengths.max()), int(mel_lengths.max())
    token_mask = torch.arange(tokens)[None] < token_lengths[:, None]
    mel_mask = torch.arange(frames)[None] < mel_lengths[:, None]
    random = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    ids = torch.stack(
        (
            torch.randint(1, 20, (size, tokens), generator=generator),
            torch.randint(0, 3, (size, tokens), generator=generator),
        ),
        dim=2,
    )
    voiced = (random(size, frames) > -0.5) & mel_mask
    return Batch(
        ids=ids * token_mask[:, :, None],
        token_lengths=token_lengths,
        mel=torch.where(mel_mask[:, :, None], random(size, frames, 80) * 2 - 5, torch.tensor(-11.5129)),
        mel_lengths=mel_lengths,
        pitch=random(size, frames) * voiced,
        voiced=voiced,
        energy=random(size, frames) * mel_mask,
        speaker_vector=torch.nn.functional.normalize(random(size, 256), dim=1),
        speaker=torch.arange(size),
        language=torch.arange(size) % 2,
        clip_ids=[f"clip{i}" for i in range(size)],
        reference_mel=random(size, 256, 80) * 2 - 5,
        reference_lengths=torch.tensor([256 if i % 2 else 190 for i in range(size)]),
        reference_clip=torch.arange(size) + size,
    )


def _alone(batch, index):
    """Returns clip `index` of a batch as a batch of its own, without padding."""
    tokens, frames = int(batch.token_lengths[index]), int(batch.mel_lengths[index])
    cut = {"ids": tokens, "mel": frames, "pitch": frames, "voiced": frames, "energy": frames}
    values = {}
    for name, value in vars(batch).items():
        if value is None:
            continue
        row = value[index : index + 1]
        values[name] = row[:, : cut[name]] if name in cut else row
    return Batch(**values)


@pytest.fixture
def batch():
    return _make_batch()


@pytest.fixture
def make_batch():
    """Returns a function from (tokens, frames) of each clip and a seed to a random batch."""
    return _make_batch


@pytest.fixture
def alone():
    """Returns a function from a batch and an index to the batch of that clip alone, without padding."""
    return _alone
