"""Settings of the losses and of the training loop."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from model.config import ModelSize, OptimizationLevel, Positive, Section, Share, StepSettings
from model.config.acoustic import ModelConfig
from model.config.data import AudioConfig, FeaturesConfig


class LossConfig(Section):
    """Weights of the loss terms, and the schedules of the alignment terms (shares of `training.max_steps`)."""

    mel_loss_weight: Annotated[float, Field(gt=0)] = 2.5
    duration_loss_weight: Annotated[float, Field(ge=0)] = 0.1
    pitch_loss_weight: Annotated[float, Field(ge=0)] = 0.1
    energy_loss_weight: Annotated[float, Field(ge=0)] = 0.1
    forward_sum_loss_weight: Annotated[float, Field(gt=0)] = 1.0
    binarization_loss_weight: Annotated[float, Field(ge=0)] = 1.0
    binarization_start: Share = 0.3
    """Share of training before the soft alignment is pulled towards the hard one. At 0.1, sentences of seven seconds
    froze in a wrong alignment (held-out forward-sum 0.89 after 400 steps, 0.71 without the pull)."""
    binarization_end: Share = 0.5
    """Share of training at which the binarisation weight is full."""
    forward_sum_blank_logprob: float = -1.0
    """Log-score of the blank column; -1 is the published, softer form, -1e4 the exact HMM likelihood."""
    use_guided_attention: bool = True
    """Penalise soft alignments far from the diagonal: the text is found sooner, among many speakers found at all."""
    guided_attention_sigma: Annotated[float, Field(gt=0)] = 0.2
    """Width of the free band around the diagonal, as a share of the clip."""
    guided_attention_loss_weight: Annotated[float, Field(ge=0)] = 1.0
    """Minutes of speech want more (`tiny`: 5). Held-out forward-sum of one reader after 300 steps: 0.56 without,
    0.53 at 1, 0.48 at 5, 0.47 at 10."""
    guided_attention_end: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of training by which the guidance has faded to nothing."""
    kl_loss_weight: Annotated[float, Field(gt=0)] = 1.0
    """Weight of the latent's divergence from its prior; safe from 0.5 to 2."""
    kl_free_bits: Annotated[float, Field(ge=0)] = 0.1
    """Nats per latent dimension that cost nothing: without them the latent is soon unused."""
    kl_annealing_end: Share = 0.2
    """Share of training at which the divergence has its full weight."""
    use_contrastive_speaker_loss: bool = False
    """Clips of one speaker together, of different speakers apart; batches hold several clips of each speaker then."""
    contrastive_loss_weight: Annotated[float, Field(ge=0)] = 0.5
    contrastive_loss_temperature: Annotated[float, Field(gt=0)] = 0.07
    contrastive_clips_per_speaker: Annotated[int, Field(ge=2)] = 4
    """Clips of each speaker in a batch; the speakers in it are `training.batch_size` over this number."""
    speaker_consistency_loss_weight: Annotated[float, Field(ge=0)] = 1.0
    """Of `model.use_speaker_consistency_loss`."""
    speaker_consistency_start: Share = 0.3
    """Share of training before which predicted mels are not yet speech to listen to."""
    allow_dangerous: bool = False
    """Accept loss weights from the ranges that the checklist calls dangerous."""


class TrainingConfig(Section):
    """The loop: budget, optimiser, schedule, clipping, averaging, checkpoints."""

    start_from: str = "none"
    """Voice whose weights training starts from: its folder, `models:/<name>@<alias>`,
    `models:/<name>/<version>`, or `none`. Sizes of the model come from it unless they are given."""
    keep_languages: bool = True
    """Keep the languages of `start_from` that the corpus lacks."""
    freeze: tuple[Literal["embeddings", "encoder", "aligner", "predictors", "decoder"], ...] = ()
    """Parts of the model that keep the weights of `start_from`."""
    max_steps: Positive = 1200
    batch_size: Positive = 16
    """Most clips of an optimiser step (of each process, where several train together)."""
    max_batch_frames: Annotated[int, Field(ge=0)] = 0
    """Most mel frames of a batch, padding included; 0 sets no bound. Clips of seven seconds then come eight at a time
    where those of three come sixteen, and every step costs about the same time and memory."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    aligner_learning_rate_scale: Annotated[float, Field(gt=0)] = 2.0
    """Factor on the rate of the aligner: everything else waits for its durations."""
    learning_rate_schedule: Literal["constant", "cosine", "cosine_restarts"] = "cosine"
    """After the linear warm-up: flat, one cosine to `final_learning_rate_ratio`, or four cosines."""
    final_learning_rate_ratio: Annotated[float, Field(gt=0, le=1)] = 0.05
    warmup_steps: Annotated[int, Field(ge=0)] = 100
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    gradient_clip_norm: Annotated[float, Field(gt=0)] = 0.5
    gradient_clip_value: Annotated[float, Field(gt=0)] = 1.0
    """Each gradient element is clipped first, then the norm of the whole."""
    durations: Literal["learned", "cached"] = "learned"
    """`cached`: once the alignment has converged (after `loss.binarization_end`), durations are kept and the aligner
    rests, which saves its share of every later step."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.995
    """Decay of the averaged weights that are validated and exported; 0 uses the raw weights."""
    gradient_accumulation_steps: Positive = 1
    """Parts that the batch of a step is computed in: the gradient of the whole batch in the memory of one part. Doubled
    by itself, and said so, when a part does not fit into memory."""
    enable_gradient_checkpointing: bool = False
    """Keep only the input of each transformer block and compute the rest again in the backward pass: the same gradient,
    less memory, about a third more time."""
    use_mixed_precision: bool = False
    """Autocast with float32 islands (aligner, durations, losses), where the processor computes in `mixed_precision`."""
    mixed_precision: Literal["bfloat16", "float16"] = "bfloat16"
    """float16 comes with a loss scaler, for GPUs older than bfloat16."""
    enable_adaptive_loss_weights: bool = False
    """Hold back the weight of a loss term that grows relative to the others, and lift one that falls, within a factor
    of 3 of the weights in `loss`."""
    adaptive_weight_update_interval: Positive = 50
    """Steps between the updates of the adaptive weights, each by 5 % at most."""
    enable_plateau_breaker: bool = False
    """Watch for a plateau, and change the learning rate at the first one: see `plateau_rate_boost`."""
    plateau_patience: Positive = 200
    """Steps that are looked at: on a plateau, the second half is not better than the first by `plateau_threshold`."""
    plateau_threshold: Annotated[float, Field(gt=0, lt=1)] = 0.01
    plateau_rate_boost: Annotated[float, Field(gt=1)] = 4.0
    """On a plateau the rate is divided by this for half of `plateau_patience`. If the loss falls, it stays so; if not,
    it rises to this multiple of `learning_rate`, and falls back to the schedule by a cosine."""
    plateau_boost_steps: Positive = 200
    """Length of that rise and fall."""
    enable_evaluation: bool = True
    """Validate every `evaluation_interval` steps; without it the last weights become the voice, unmeasured."""
    evaluation_interval: Positive = 200
    """Steps between validations; a scored checkpoint is written at each."""
    checkpoint_interval: Positive = 100
    """Steps between the unscored checkpoints that bound what a crash can lose."""
    keep_top_k: Positive = 2
    """Best checkpoints kept besides the last one."""
    exported_checkpoint: Literal["last", "best"] = "last"
    """Which weights become the voice. On minutes of speech the held-out mel error is lowest at two thirds of the way,
    while the speech goes on getting clearer: on 5.5 minutes the character error of training sentences fell from 0.20 at
    the best checkpoint to 0.15 at the last, that of unseen ones stayed at 0.30."""
    variance_restoration: Annotated[float, Field(ge=0, le=2)] = 1.0
    """How much of the spread that predicted mels lack against held-out recordings the voice gives back: 0 nothing, 1
    all of it."""
    log_interval: Positive = 20
    buffer_size: Annotated[int, Field(ge=0)] = 4
    """Batches prepared ahead of the step that needs them; 0 prepares each when it is asked for."""
    num_workers: Positive = 1
    """Threads that prepare batches (memory-mapped features: copying, not computing)."""
    enable_static_shapes: bool = False
    """Pad every batch to one of `num_shape_buckets` (tokens, frames) shapes, all batches of a shape of one size."""
    num_shape_buckets: Positive = 6
    enable_compile: bool = False
    """`torch.compile` of the encoder and decoder stacks, one graph per shape: goes with `enable_static_shapes`."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the model computes; `auto` takes a GPU where there is one."""
    model_gpu: Annotated[int, Field(ge=-1)] = -1
    """Number of the GPU that trains; -1 leaves the choice to `device`."""
    data_gpu: Annotated[int, Field(ge=-1)] = -1
    """Number of the GPU that validates and speaks the audio previews; -1 means the one that trains."""
    enable_memory_isolation: bool = False
    """Cap what this process may take of the memory of `model_gpu` and `data_gpu`, so that what shares them survives."""
    num_threads: Annotated[int, Field(ge=0)] = 0
    """Torch threads; 0 means one per physical core, less one that is left to everything else."""
    max_skipped_steps: Positive = 20
    """Bad steps in a row (not finite, so skipped; or diverged) after which the run goes back to its last good
    checkpoint."""
    divergence_factor: Annotated[float, Field(gt=1)] = 4.0
    """A step has diverged when its loss is so many times the best median so far."""
    max_rollbacks: Annotated[int, Field(ge=0)] = 3
    """Times that a run goes back before it stops with a report."""
    rollback_rate_factor: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Factor on the learning rate at each time."""


class TrainSettings(StepSettings):
    """Settings that the training of an acoustic model reads."""

    model_size: ModelSize
    optimization_level: OptimizationLevel
    seed: Annotated[int, Field(ge=0)]
    audio: AudioConfig
    features: FeaturesConfig
    model: ModelConfig
    loss: LossConfig
    training: TrainingConfig
