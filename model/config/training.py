"""Settings of the losses and of the training loop."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from model.config import ModelSize, OptimizationLevel, Positive, Section, Share, StepSettings
from model.config.acoustic import ModelConfig
from model.config.data import AudioConfig, FeaturesConfig


class LossConfig(Section):
    """Weights of the loss terms, and their schedules in fractions of `training.max_steps`."""

    mel_loss_weight: Annotated[float, Field(gt=0)] = 2.5
    """Weight of the mel reconstruction loss; safe from 2.5 to 5."""
    duration_loss_weight: Annotated[float, Field(ge=0)] = 0.1
    """Weight of the squared errors of log durations and of the length of a clip."""
    pitch_loss_weight: Annotated[float, Field(ge=0)] = 0.1
    """Weight of the squared error of the predicted pitch."""
    energy_loss_weight: Annotated[float, Field(ge=0)] = 0.1
    """Weight of the squared error of the predicted energy."""
    forward_sum_loss_weight: Annotated[float, Field(gt=0)] = 1.0
    """Weight of the negative log-likelihood of the alignment."""
    binarization_loss_weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the loss that pulls the soft alignment onto its best path."""
    binarization_start: Share = 0.3
    """Fraction of training at which the binarization loss starts, which pulls the soft alignment towards the hard one.
    At 0.1, sentences of seven seconds stayed in a wrong alignment (held-out forward-sum loss 0.89 after 400 steps, 0.71
    without the binarization loss)."""
    binarization_end: Share = 0.5
    """Fraction of training at which the binarization loss has its full weight."""
    forward_sum_blank_logprob: float = -1.0
    """Log-score of the blank column: -1 is the published, softer form, -1e4 the exact HMM likelihood."""
    use_guided_attention: bool = True
    """Penalize soft alignments far from the diagonal: alignments converge sooner, and with many speakers at all."""
    guided_attention_sigma: Annotated[float, Field(gt=0)] = 0.2
    """Width of the unpenalized band around the diagonal, as a fraction of the clip."""
    guided_attention_loss_weight: Annotated[float, Field(ge=0)] = 1.0
    """Small corpora benefit from a larger weight (`tiny`: 5). Held-out forward-sum loss of one reader after 300 steps:
    0.56 without, 0.53 at 1, 0.48 at 5, 0.47 at 10."""
    guided_attention_end: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Fraction of training at which the weight has decayed to zero."""
    kl_loss_weight: Annotated[float, Field(gt=0)] = 1.0
    """Weight of the KL divergence of the latent from its prior; safe from 0.5 to 2."""
    kl_free_bits: Annotated[float, Field(ge=0)] = 0.1
    """Nats per latent dimension without a penalty, to avoid posterior collapse."""
    kl_annealing_end: Share = 0.2
    """Fraction of training at which the KL divergence has its full weight."""
    use_contrastive_speaker_loss: bool = False
    """Pull embeddings of one speaker together and those of different speakers apart, in batches of several clips per
    speaker."""
    contrastive_loss_weight: Annotated[float, Field(ge=0)] = 0.5
    """Weight of the contrastive speaker loss."""
    contrastive_loss_temperature: Annotated[float, Field(gt=0)] = 0.07
    """Temperature of the similarities in the contrastive speaker loss."""
    contrastive_clips_per_speaker: Annotated[int, Field(ge=2)] = 4
    """Clips per speaker in a batch, which has `training.batch_size` divided by this many speakers."""
    speaker_consistency_loss_weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight of `model.use_speaker_consistency_loss`."""
    speaker_consistency_start: Share = 0.3
    """Fraction of training at which the loss starts: before, predicted mels are not yet speech."""
    allow_dangerous: bool = False
    """Accept loss weights in the ranges that `myxtts diagnose` calls dangerous."""


class TrainingConfig(Section):
    """Training loop: steps, batches, optimizer, schedule, clipping, averaging, checkpoints, devices."""

    start_from: str = "none"
    """Voice whose weights training starts from: its folder, `models:/<name>@<alias>`, `models:/<name>/<version>`,
    `none`, or `auto`: for recordings the base voice of their languages, which `myxtts run` makes from generated speech
    if there is none yet, and none for generated speech. Sizes of the model come from it unless they are given."""
    start_from_sha256: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""
    """SHA-256 of the weights of `start_from`; runs record it, so that another voice under the same name is detected."""
    keep_languages: bool = True
    """Keep the languages of `start_from` that the corpus lacks."""
    keep_speakers: bool = False
    """Also list those speakers of `start_from` whose synthesized speech still resembles them after the training."""
    rehearsal: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the clips of each batch that come from the features of `start_from`, so that its speakers are not
    overwritten; 0 trains on the corpus alone."""
    freeze: tuple[Literal["embeddings", "encoder", "aligner", "predictors", "decoder"], ...] = ()
    """Parts of the model that keep the weights of `start_from`."""
    base_interpolation: Share = 0.0
    """Position of the exported embeddings, encoder and predictors between the trained weights (0) and those of
    `start_from` (1). With few clips, training makes them worse, and the weights in between are more intelligible."""
    max_steps: Positive = 1200
    """Optimizer steps of the whole training."""
    batch_size: Positive = 16
    """Largest number of clips of an optimizer step, in each process."""
    max_batch_frames: Annotated[int, Field(ge=0)] = 0
    """Largest number of mel frames of a batch, padding included; 0 sets no limit. With a limit, batches of long clips
    have fewer clips, and all steps take about the same time and memory."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    """Peak learning rate, reached after the warm-up."""
    aligner_learning_rate_scale: Annotated[float, Field(gt=0)] = 2.0
    """Factor on the learning rate of the aligner, whose durations all other modules need."""
    learning_rate_schedule: Literal["constant", "cosine", "cosine_restarts"] = "cosine"
    """Learning rate after the linear warm-up: constant, one cosine to `final_learning_rate_ratio`, or four of them."""
    final_learning_rate_ratio: Annotated[float, Field(gt=0, le=1)] = 0.05
    """Learning rate at the end as a fraction of `learning_rate`."""
    warmup_steps: Annotated[int, Field(ge=0)] = 100
    """Steps of the linear rise of the learning rate at the start."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    """Decoupled weight decay of AdamW."""
    gradient_clip_norm: Annotated[float, Field(gt=0)] = 0.5
    """Largest norm of the gradient; larger ones are scaled down."""
    gradient_clip_value: Annotated[float, Field(gt=0)] = 1.0
    """Limit of each gradient element, applied before the norm is clipped."""
    durations: Literal["learned", "cached"] = "learned"
    """`cached`: once the alignment has converged (after `loss.binarization_end`), keep its durations and skip the
    aligner in all later steps."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.995
    """Decay of the averaged weights that are validated and exported; 0 uses the raw weights."""
    gradient_accumulation_steps: Positive = 1
    """Micro-batches per step: the gradient of the whole batch in the memory of one micro-batch. Doubled, with a
    warning, when a micro-batch does not fit into memory."""
    enable_gradient_checkpointing: bool = False
    """Keep only the input of each transformer block and recompute the rest in the backward pass: the same gradient,
    less memory, about a third more time."""
    use_mixed_precision: bool = False
    """Autocast, with aligner, durations and losses in float32, where the processor supports `mixed_precision`."""
    mixed_precision: Literal["bfloat16", "float16"] = "bfloat16"
    """float16 uses a loss scaler, for GPUs without bfloat16."""
    enable_adaptive_loss_weights: bool = False
    """Lower the weight of a loss term that grows relative to the others, and raise one that falls, within a factor of 3
    of the weights in `loss`."""
    adaptive_weight_update_interval: Positive = 50
    """Steps between the updates of the adaptive weights, each by 5 % at most."""
    enable_plateau_breaker: bool = False
    """Detect a plateau, and change the learning rate at the first one: see `plateau_rate_boost`."""
    plateau_patience: Positive = 200
    """Window in steps: on a plateau, its second half is not better than its first by `plateau_threshold`."""
    plateau_threshold: Annotated[float, Field(gt=0, lt=1)] = 0.01
    """Relative decrease of the loss below which `plateau_patience` steps are a plateau."""
    plateau_rate_boost: Annotated[float, Field(gt=1)] = 4.0
    """On a plateau the learning rate is divided by this for half of `plateau_patience`. If the loss falls, it stays
    there; if not, it rises to this multiple of `learning_rate` and returns to the schedule by a cosine."""
    plateau_boost_steps: Positive = 200
    """Steps in which the learning rate rises to its multiple and returns to the schedule."""
    enable_evaluation: bool = True
    """Validate every `evaluation_interval` steps; otherwise the last weights are exported without validation."""
    evaluation_interval: Positive = 200
    """Steps between validations, each of which writes a checkpoint with its score."""
    checkpoint_interval: Positive = 100
    """Steps between checkpoints without a score, which limit the work that a crash can lose."""
    keep_top_k: Positive = 2
    """Number of best checkpoints to keep besides the last one."""
    exported_checkpoint: Literal["last", "best"] = "last"
    """Weights that become the voice. On minutes of speech the held-out mel error is lowest after two thirds of the
    steps, but the speech becomes clearer until the end: on 5.5 minutes the character error rate of training sentences
    fell from 0.20 at the best checkpoint to 0.15 at the last, that of held-out ones stayed at 0.30."""
    variance_restoration: Annotated[float, Field(ge=0, le=2)] = 0.5
    """Fraction of the variance that predicted mels lack against held-out recordings which the voice restores: 0 none, 1
    all of it. More of it is clearer, and less like the speaker (docs/measurements)."""
    log_interval: Positive = 20
    """Steps between two records in `history.jsonl`."""
    buffer_size: Annotated[int, Field(ge=0)] = 4
    """Batches to prefetch; 0 prepares each when it is requested."""
    num_workers: Positive = 1
    """Threads that prepare batches from memory-mapped features."""
    enable_static_shapes: bool = False
    """Pad every batch to one of `num_shape_buckets` shapes (tokens, frames) with one batch size each."""
    num_shape_buckets: Positive = 6
    """Largest number of static shapes."""
    enable_compile: bool = False
    """`torch.compile` of the encoder and decoder stacks, one graph per shape; use with `enable_static_shapes`."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device of the model; `auto` takes a GPU if there is one."""
    model_gpu: Annotated[int, Field(ge=-1)] = -1
    """Index of the GPU for training; -1 leaves the choice to `device`."""
    data_gpu: Annotated[int, Field(ge=-1)] = -1
    """Index of the GPU for validation and audio previews; -1 means that of training."""
    enable_memory_isolation: bool = False
    """Limit the memory of this process on `model_gpu` and `data_gpu`, for other processes on the same GPUs."""
    num_threads: Annotated[int, Field(ge=0)] = 0
    """Torch threads; 0 means all physical cores but one."""
    max_skipped_steps: Positive = 20
    """Consecutive bad steps (skipped because they are not finite, or diverged) after which the run rolls back to its
    last good checkpoint."""
    divergence_factor: Annotated[float, Field(gt=1)] = 4.0
    """Ratio of a loss to its best median so far from which a step has diverged."""
    max_rollbacks: Annotated[int, Field(ge=0)] = 3
    """Rollbacks after which a run stops with a report."""
    rollback_rate_factor: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Factor on the learning rate at each rollback."""


class TrainSettings(StepSettings):
    """Settings of the `train` step."""

    model_size: ModelSize
    optimization_level: OptimizationLevel
    seed: Annotated[int, Field(ge=0)]
    audio: AudioConfig
    features: FeaturesConfig
    model: ModelConfig
    loss: LossConfig
    training: TrainingConfig
