"""The training pipeline: one definition for this machine and for a cluster."""

from collections.abc import Mapping
from typing import Any

from kfp import dsl

from components.base_voice import AUTO, NONE
from components.configure.component import configure
from components.configure.parameters import STEP_SETTINGS, pin_checkpoints, refuse_credentials, to_parameters
from components.data_versions import LATEST
from components.evaluate.component import evaluate
from components.finetune_vocoder.component import finetune_vocoder
from components.gate.component import gate
from components.preprocess.component import preprocess, preprocess_joined
from components.preprocess_part.component import preprocess_part
from components.register.component import register
from components.resolve_data.component import resolve_data
from components.train.component import train
from model.config.resolution import resolve
from model.config.schema import Config
from pipelines.profiles import Profile, pipeline_config, place

__all__ = ["NAME", "STEP_SETTINGS", "arguments", "extract_features", "train_to_gate", "training_pipeline"]

NAME = "myxtts-training"


def arguments(
    config: Config,
    data: str,
    remote: str,
    name: str = "",
    derived: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, str]:
    """Returns the arguments of a run: data, names and settings, as they are shown on the page of the run.

    Args:
        config: Resolved settings.
        data: DVC hash of the corpus, or `latest`.
        remote: DVC remote that holds it.
        name: Registered model; '' to name it after corpus and model size.
        derived: Settings that follow from the base voice (see `to_parameters`).

    Raises:
        ConfigError: an argument contains an address with credentials, which every user of the page could read.
    """
    if config.training.start_from == AUTO and config.corpus.format == "generated":
        scratch = config.training.model_copy(update={"start_from": NONE})
        config = config.model_copy(update={"training": scratch})
    names = {"data": data, "remote": remote, "corpus": config.corpus.name, "name": name}
    values = {**names, **to_parameters(pin_checkpoints(config), derived)}
    refuse_credentials(values)
    return values


def training_pipeline(profile: Profile, defaults: Mapping[str, str] | None = None) -> Any:
    """Returns the pipeline of a target.

    Args:
        profile: Profile of the target.
        defaults: Arguments that the page of Kubeflow Pipelines suggests [default: those of the default settings, and
            no remote].
    """
    given = defaults or arguments(resolve().config, LATEST, "")

    @dsl.pipeline(
        name=NAME,
        description="Recordings by content hash to a gated, registered voice.",
        pipeline_config=pipeline_config(profile),
    )
    def pipeline(
        data: str = given["data"],
        remote: str = given["remote"],
        corpus: str = given["corpus"],
        name: str = given["name"],
        model_size: str = given["model_size"],
        optimization_level: str = given["optimization_level"],
        start_from: str = given["start_from"],
        max_steps: str = given["max_steps"],
        batch_size: str = given["batch_size"],
        learning_rate: str = given["learning_rate"],
        vocoder: str = given["vocoder"],
        seed: str = given["seed"],
        settings: str = given["settings"],
    ) -> dsl.Artifact:
        """Trains a voice and registers it.

        Args:
            data: Hash of the data (<md5>.dir), or latest: the newest data of the corpus when the run starts.
            remote: DVC remote that holds the data.
            corpus: Name of the corpus, which names the MLflow experiment.
            name: Registered model; empty: named after corpus and model size.
            model_size: xtiny, tiny, small, normal or big; empty: the size of the base voice.
            optimization_level: basic, enhanced, experimental or plateau_breaker.
            start_from: Base voice: models:/NAME@ALIAS, a folder, auto, or none to train from scratch.
            max_steps: Training steps; empty: as usual for the model size, or for the adaptation of a base voice.
            batch_size: Clips per batch; empty: as usual for the model size.
            learning_rate: Learning rate; empty: as usual for the model size.
            vocoder: Type of the vocoder, such as griffin_lim or hifigan.
            seed: Seed of all random numbers.
            settings: Further settings by dotted key, as JSON or YAML; `myxtts config show` lists all.
        """
        configured = configure(
            data=data,
            remote=remote,
            corpus=corpus,
            name=name,
            model_size=model_size,
            optimization_level=optimization_level,
            start_from=start_from,
            max_steps=max_steps,
            batch_size=batch_size,
            learning_rate=learning_rate,
            vocoder=vocoder,
            seed=seed,
            settings=settings,
        )
        chosen = configured.outputs
        resolved = resolve_data(data_hash=chosen["data_hash"], evaluation_data=chosen["evaluation_data"], remote=remote)
        corpus_data = resolved.outputs["data"]
        features = extract_features(profile, corpus_data, chosen["preprocess_settings"])
        decision = train_to_gate(
            profile,
            data=corpus_data,
            features=features,
            experiment=corpus,
            name=chosen["model_name"],
            train_settings=chosen["train_settings"],
            finetune_vocoder_settings=chosen["finetune_vocoder_settings"],
            evaluate_settings=chosen["evaluate_settings"],
            gate_settings=chosen["gate_settings"],
        )
        for step, task in {"configure": configured, "resolve_data": resolved}.items():
            place(task, step, profile)
        return decision

    return pipeline


def extract_features(profile: Profile, data: Any, settings: Any) -> Any:
    """Adds the extraction of features to a pipeline, in parts if the profile says so, and returns the features.

    Args:
        profile: Settings of the target.
        data: Output of `resolve_data`.
        settings: `PreprocessSettings` as JSON.
    """
    if profile.preprocess_parts == 1:
        prepared = preprocess(data=data, settings=settings)
    else:
        count = profile.preprocess_parts
        with dsl.ParallelFor([f"{number}/{count}" for number in range(count)], parallelism=count) as part:
            extracted = preprocess_part(data=data, settings=settings, part=part)
            place(extracted, "preprocess", profile)
        shards = dsl.Collected(extracted.outputs["shards"])
        prepared = preprocess_joined(data=data, settings=settings, parts=shards)
    place(prepared, "preprocess", profile)
    return prepared.outputs["features"]


def train_to_gate(
    profile: Profile,
    *,
    data: Any,
    features: Any,
    experiment: Any,
    name: Any,
    train_settings: Any,
    finetune_vocoder_settings: Any,
    evaluate_settings: Any,
    gate_settings: Any,
    origin: Any = None,
) -> Any:
    """Adds the steps from training to the gate to a pipeline and returns the gate's decision.

    Args:
        profile: Settings of the target.
        data, features: Outputs of `resolve_data` and `preprocess`.
        experiment, name: MLflow experiment and registered model.
        train_settings, finetune_vocoder_settings, evaluate_settings, gate_settings: Settings of the steps as JSON.
        origin: Further tags of the registered version as JSON, such as the study that its settings come from.
    """
    trained = train(data=data, features=features, settings=train_settings, experiment=experiment)
    training = trained.outputs["training"]
    finetuned = finetune_vocoder(
        data=data, features=features, training=training, settings=finetune_vocoder_settings, experiment=experiment
    )
    finetuning = finetuned.outputs["finetuning"]
    evaluated = evaluate(
        data=data, features=features, training=training, finetuning=finetuning, settings=evaluate_settings
    )
    evaluation = evaluated.outputs["evaluation"]
    registered = register(
        data=data,
        features=features,
        training=training,
        finetuning=finetuning,
        evaluation=evaluation,
        name=name,
        **({} if origin is None else {"origin": origin}),
    )
    decided = gate(
        data=data,
        features=features,
        training=training,
        evaluation=evaluation,
        registration=registered.outputs["registration"],
        settings=gate_settings,
        evaluate_settings=evaluate_settings,
    )
    tasks = {
        "train": trained,
        "finetune_vocoder": finetuned,
        "evaluate": evaluated,
        "register": registered,
        "gate": decided,
    }
    for step, task in tasks.items():
        place(task, step, profile)
    return decided.outputs["decision"]
