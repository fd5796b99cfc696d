"""Model card of a registered voice: the description of its version in MLflow."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from components.gate.comparison import COMPARED, Evaluation, values_of_metric
from model.evaluation.metric_table import METRIC_TABLE
from model.evaluation.statistics import estimate_mean

MAX_SPEAKERS = 20


def mean_metrics(evaluation: Evaluation) -> dict[str, float]:
    """Returns the mean of each compared metric over the unseen sentences, without those that do not apply."""
    found = {metric: list(values_of_metric(metric, evaluation).values()) for metric in COMPARED}
    return {metric: estimate_mean(values).mean for metric, values in found.items() if values}


def model_card(name: str, voice: Mapping[str, Any], evaluation: Evaluation, tags: Mapping[str, str]) -> str:
    """Returns the model card as Markdown.

    Args:
        name: Registered model.
        voice: Contents of `voice.json`.
        evaluation: Contents of `metrics.json`.
        tags: Tags of the version.
    """
    config = voice["config"]
    origin = tags.get("base.chain", "")
    audio, vocoder = config.get("audio", {}), config.get("vocoder", {})
    facts = {
        "Acoustic model": f"{config.get('model_size', 'unknown size')}, {voice.get('steps', 0)} training steps",
        "Audio": f"{audio.get('sample_rate', 'unknown')} Hz, vocoder {vocoder.get('type', 'unknown')}",
        "Languages": ", ".join(voice.get("languages", ())) or "unknown",
        "Speakers": _speakers(voice.get("speaker_languages", {})),
        "Data": f"`{tags.get('dvc.data', 'unknown')}` (DVC)",
        "Started from": origin or "random weights",
        "License of the recordings": tags.get("data.license", "") or "not stated (`corpus.license`)",
        "Code": f"commit `{tags.get('git.sha', 'unknown')}`",
    }
    return "\n".join(
        [
            f"# {name}",
            "",
            "A text-to-speech voice made by MyXTTS: text in, speech out. It speaks as one of its speakers, or as the "
            "speaker of a short reference recording.",
            "",
            *(f"- {key}: {value}" for key, value in facts.items()),
            "",
            "## Metrics",
            "",
            *_metrics(evaluation),
            "",
            "## Limits",
            "",
            *(f"- {limit}" for limit in _limits(voice, evaluation)),
            "",
        ]
    )


def _speakers(languages: Mapping[str, str]) -> str:
    """Returns the number of speakers by language, and their names."""
    counts = ", ".join(f"{count} of {language}" for language, count in Counter(languages.values()).items())
    names = list(languages)
    more = f" and {len(names) - MAX_SPEAKERS} more" if len(names) > MAX_SPEAKERS else ""
    return f"{counts} ({', '.join(names[:MAX_SPEAKERS])}{more})" if names else "unknown"


def _metrics(evaluation: Evaluation) -> list[str]:
    """Returns the table of metrics with their intervals over sentences."""
    lines = [
        f"On sentences that the voice was not trained on (set `{evaluation['examination']['hash']}`); mean with 95 % "
        "interval over sentences.",
        "",
        "| metric | mean | interval | sentences |",
        "| --- | --- | --- | --- |",
    ]
    for name in COMPARED:
        if not (values := list(values_of_metric(name, evaluation).values())):
            continue
        metric, estimate = METRIC_TABLE[name], estimate_mean(values)
        low, mean, high = (f"{value:.{metric.decimals}f}" for value in (estimate.low, estimate.mean, estimate.high))
        interval = f"{low} to {high}" if estimate.count > 1 else "–"
        lines.append(f"| {metric.label} ({metric.unit_and_direction}) | {mean} | {interval} | {estimate.count} |")
    return lines


def _limits(voice: Mapping[str, Any], evaluation: Evaluation) -> list[str]:
    """Returns what the voice cannot do, and what its evaluation does not say."""
    limits = [f"Other languages than {', '.join(voice.get('languages', ())) or 'its own'} are refused."]
    understood = evaluation["gate"]["character_error_increase"]["value"] is not None
    for name, value in evaluation["gate"].items():
        if value["value"] is None and not (name == "phone_error_increase" and understood):
            limits.append(f"No {name.replace('_', ' ')}: {value['reason'] or 'it was not measured'}.")
    spoken = {clip["language"] for clip in evaluation["clips"] if clip["part"] == "unseen"}
    if missing := sorted(set(voice.get("languages", ())) - spoken):
        limits.append(f"Not evaluated in {', '.join(missing)}: no sentences were held out.")
    limits.append("The metrics do not replace listeners; the tag `listening` has the result of a listening test.")
    limits.append("Clone only voices whose owners agree.")
    return limits
