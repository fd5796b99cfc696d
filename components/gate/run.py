"""Compares a version with thresholds and with the champion, and promotes it if it passes both."""

import html
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from components.announcement import announce
from components.contracts import (
    EvaluateOutput,
    GateOutput,
    PreprocessOutput,
    RegisterOutput,
    ResolveDataOutput,
    TrainOutput,
)
from components.gate.checks import FAILED, Check, threshold_checks
from components.gate.comparison import Comparison, best_in, best_versions, compare
from components.gate.examination import ExaminationError, VoiceEvaluation, examine
from components.gate.listening import LISTENING, listening_check
from components.gate.metrics import gate_metrics, reasons
from components.gate.page import write_page
from components.registry import CHAMPION, DECISION, GATE, ROLLED_BACK, Registry
from components.results import Results
from components.runner import parse_settings
from components.state import State, read_json
from components.tracking import Delivery, append_to_run
from model.code_hash import code_hash
from model.config import settings_hash
from model.config.evaluation import EvaluateSettings, GateSettings
from model.errors import MyXTTSError
from model.files import write_json


class GateFailed(MyXTTSError):
    """The candidate was not promoted; the message names every check that failed."""

    exit_code = 1

    def __init__(self, message: str, output: GateOutput) -> None:
        super().__init__(message)
        self.output = output

    @property
    def report(self) -> Path:
        """The gate's report (`gate.json`)."""
        return self.output.report


def run(
    data: str,
    features: str,
    training: str,
    evaluation: str,
    registration: str,
    settings: str,
    evaluate_settings: str,
) -> GateOutput:
    """Checks the registered version and promotes it when no check fails.

    Args:
        data: Path of the `ResolveDataOutput`, on which the champion is evaluated too.
        features: Path of the `PreprocessOutput`.
        training: Path of the `TrainOutput`, which the report names.
        evaluation: Path of the `EvaluateOutput`.
        registration: Path of the `RegisterOutput`.
        settings: JSON of the `GateSettings`.
        evaluate_settings: JSON of the `EvaluateSettings` of the evaluation, which the champion's evaluation uses too.

    Raises:
        GateFailed: a check failed; nothing was promoted.
    """
    corpus, store = ResolveDataOutput.read(data), PreprocessOutput.read(features)
    trained, evaluated = TrainOutput.read(training), EvaluateOutput.read(evaluation)
    registered = RegisterOutput.read(registration)
    config = parse_settings(GateSettings, settings).registry
    evaluate_config = parse_settings(EvaluateSettings, evaluate_settings)
    state = State.locate()
    registry = Registry(state)
    name, number = registered.name, registered.version
    candidate = registry.version(name, number)
    champion_number = registry.aliases(name).get(CHAMPION, "")
    results = VoiceEvaluation.read(evaluated.evaluation)
    metrics = gate_metrics(results.metrics)
    rolled_back = candidate.tags.get(ROLLED_BACK, "")
    path = state.gate(settings_hash({"name": name, "version": number})) / "gate.json"
    best = best_versions(registry.history(name), registry.versions(name), champion_number, number)
    judged_on = settings_hash(
        {
            "registration": [name, number],
            "data": [corpus.data_hash, corpus.examination_hash],
            "features": store.examination_hash,
            "settings": config.model_dump(mode="json", exclude={"on_promote"}),
            "evaluation": evaluate_config.model_dump(mode="json"),
            "metrics": {key: repr(value) for key, value in metrics.items()},
            "champion": champion_number,
            "listening": candidate.tags.get(LISTENING, ""),
            "best": best,
            "rolled back": rolled_back,
            "code": code_hash("components.gate.run"),
        }
    )
    _raise_recorded_failure(path, judged_on)
    checks = threshold_checks(metrics, config, reasons(results.metrics))
    if rolled_back:
        reason = f"was rolled back: {rolled_back}; promote it by hand if it is good after all"
        checks.append(Check("not rolled back", FAILED, reason))
    comparisons: list[Comparison] | None = None
    ours = results
    theirs: Mapping[str, VoiceEvaluation] = {}
    if champion_number not in ("", number):
        opponents = [registry.version(name, each) for each in dict.fromkeys((champion_number, *best.values()))]
        try:
            ours, theirs = examine(state, registry, candidate, opponents, corpus, store, evaluate_config)
        except ExaminationError as error:
            checks.append(Check("unseen by both voices", FAILED, str(error)))
        else:
            references = {metric: (version, theirs[version].metrics) for metric, version in best.items()}
            comparisons = compare(ours.metrics, references, theirs[champion_number].metrics, config)
            checks += [row.check for row in comparisons]
        if config.require_listening:
            checks.append(listening_check(candidate.tags.get(LISTENING, ""), champion_number, config))
    passed = not any(check.result == FAILED for check in checks)
    run_id = Delivery(state, trained.spool).run_id or candidate.run_id
    decision_folder = f"gate/{judged_on[:12]}"
    evidence = {
        "evaluation": f"runs:/{run_id}/evaluation",
        "sentences": str(ours.metrics["examination"]["hash"]),
        "decision": f"runs:/{run_id}/{decision_folder}",
    }
    judged = {GATE: json.dumps({check.name: str(check) for check in checks}), DECISION: evidence["decision"]}
    for key, value in judged.items():
        registry.client.set_model_version_tag(name, number, key, value)
    if passed:
        from components.smoke_test import smoke_test  # imports torch, which the other checks do without

        registry.promote(
            name,
            number,
            champion_number,
            "passed the pipeline's gate",
            smoke_test,
            evidence=evidence,
            best_in=best_in(comparisons),
        )
    champion_now = registry.aliases(name).get(CHAMPION, "")
    output = GateOutput(
        summary=f"champion is version {champion_now}",
        name=name,
        version=number,
        champion=champion_now,
        champion_before=champion_number,
        report=path,
        training=trained.training,
        evaluation=evaluated.evaluation,
    )
    report = {
        **output.plain(),
        "judged_on": judged_on,
        "passed": passed,
        "metrics": metrics,
        "checks": [asdict(check) for check in checks],
        "comparisons": [asdict(row) for row in comparisons or ()],
        "examination": ours.metrics["examination"],
        "data": corpus.examination_hash,
        "examined": {
            "candidate": str(ours.folder),
            "champion": str(theirs[champion_number].folder) if champion_number in theirs else "",
        },
        "page": str(path.with_name("decision.html")),
        "time": time.strftime("%Y-%m-%dT%H:%M:%S"),
    }
    write_page(Path(report["page"]), report, ours, theirs.get(champion_number))
    write_json(path, report)
    append_to_run(state, trained.spool, {}, [path, Path(report["page"])], folder=decision_folder)
    if not passed:
        raise _failure(report)
    announce(registry, name, config.on_promote)
    return output


def _raise_recorded_failure(path: Path, judged_on: str) -> None:
    """Raises the recorded failure of a version whose checks would use the same inputs again.

    A pipeline keeps no result of a failed step and runs it again, which would evaluate the champion once more.

    Raises:
        GateFailed: the version failed before, with the same inputs.
    """
    if not path.is_file():
        return
    known = read_json(path)
    if known.get("judged_on") == judged_on and not known["passed"]:
        raise _failure(known, f"; judged {known['time']}, and nothing that the checks use has changed since")


def _failure(report: Mapping[str, Any], note: str = "") -> GateFailed:
    failed = (check for check in report["checks"] if check["result"] == FAILED)
    reasons = "\n".join(f"  {check['name']}: {check['reason']}" for check in failed)
    return GateFailed(
        f"{report['name']} version {report['version']} was not promoted "
        f"(champion: {report['champion'] or 'none'}{note}); report: {report['report']}\n{reasons}",
        GateOutput.from_plain({field.name: report[field.name] for field in fields(GateOutput)}),
    )


def results(output: GateOutput) -> Results:
    """Returns the decision with its reasons, and the metrics that led to it."""
    report = read_json(output.report)
    metrics = {name: value for name, value in report["metrics"].items() if value is not None}
    decision = "passed the gate" if report["passed"] else "did not pass the gate"
    lines = [
        f"## {report['name']} version {report['version']} {decision}",
        "",
        f"Champion: {_champion(report['champion'])}; before: {_champion(report['champion_before'])}.",
        "",
        "| check | result | reason |",
        "| --- | --- | --- |",
        *(f"| {_cell(check['name'])} | {check['result']} | {_cell(check['reason'])} |" for check in report["checks"]),
        "",
        *_comparison_table(report["comparisons"]),
        f"Evaluation: `{report['evaluation']}`, training: `{report['training']}`, {report['time']}.",
        "",
    ]
    return Results(
        metrics={"passed": float(report["passed"]), **metrics}, html=Path(report["page"]), markdown="\n".join(lines)
    )


def _comparison_table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns the Markdown lines of the comparison with the best champions so far; none without a champion."""
    if not rows:
        return []
    lines = [
        "| metric | champion | best so far | candidate | difference (95 % interval) | margin | sentences | result |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        interval = "–" if row["low"] is None else f"{row['difference']:+.3f} ({row['low']:+.3f} to {row['high']:+.3f})"
        cells = (
            row["metric"].replace("_", " "),
            _number(row["champion_value"]),
            f"{_number(row['reference_value'])} (version {row['reference']})",
            _number(row["candidate_value"]),
            interval,
            f"{row['margin']:g}",
            f"{row['sentences']} of {row['needed']}" if row["sentences"] < row["needed"] else str(row["sentences"]),
            row["result"],
        )
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _champion(version: str) -> str:
    return f"version {version}" if version else "none"


def _cell(text: str) -> str:
    """Returns a text escaped for a cell of a Markdown table, since reasons of rollbacks are free text."""
    return html.escape(" ".join(text.split()), quote=False).replace("|", "\\|")
