import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from gate_evaluation import gate_evaluation
from mlflow_double import MlflowDouble
from step_records import step_inputs

from components import runner
from components.contracts import SPOOL, GateOutput
from components.gate import run as gate
from components.gate.comparison import COMPARED
from components.gate.examination import VoiceEvaluation
from components.gate.listening import LISTENING
from components.gate.metrics import gate_metrics
from components.registry import CANDIDATE, CHAMPION, ROLLED_BACK, Registry, RegistryError
from components.results import MARKDOWN, METRICS
from components.state import write_json
from model.config.evaluation import EvaluateSettings, GateSettings, RegistryConfig
from model.config.schema import Config
from model.evaluation.evaluate import evaluate_voice
from model.features.store import FeatureStore
from model.vocoder import build_vocoder

NAME = "m"
GOOD = {
    "mel_cepstral_distortion": 6.0,
    "character_error_increase": 0.1,
    "phone_error_increase": 0.05,
    "alignment_monotonicity": 0.98,
}
CONFIG = RegistryConfig()


def results(checks) -> dict[str, str]:
    return {check.name: check.result for check in checks}


def test_good_metrics_pass_every_threshold():
    assert set(results(gate.threshold_checks(GOOD, CONFIG)).values()) == {"pass"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mel_cepstral_distortion", 30.0),
        ("character_error_increase", 0.9),
        ("phone_error_increase", 0.5),
        ("alignment_monotonicity", 0.2),
    ],
)
def test_each_threshold_can_fail(name, value):
    checks = results(gate.threshold_checks({**GOOD, name: value}, CONFIG))
    assert checks[name.replace("_", " ")] == "fail"
    assert list(checks.values()).count("fail") == 1


@pytest.mark.parametrize(("bound", "result"), [(0.35, "pass"), (0.05, "fail")])
def test_how_much_less_clear_than_its_recordings_speech_may_be_is_a_setting(bound, result):
    checks = gate.threshold_checks(GOOD, RegistryConfig(max_character_error_increase=bound))
    assert results(checks)["character error increase"] == result


@pytest.mark.parametrize(("bound", "result"), [(0.2, "pass"), (0.04, "fail")])
def test_how_much_less_clear_speech_of_other_languages_may_be_is_a_setting(bound, result):
    checks = gate.threshold_checks(GOOD, RegistryConfig(max_phone_error_increase=bound))
    assert results(checks)["phone error increase"] == result


@pytest.mark.parametrize("name", list(GOOD))
def test_nan_never_passes(name):
    assert results(gate.threshold_checks({**GOOD, name: math.nan}, CONFIG))[name.replace("_", " ")] == "fail"


def test_what_does_not_apply_is_neither_good_nor_bad():
    checks = results(gate.threshold_checks({**GOOD, "character_error_increase": None}, CONFIG))
    assert checks["character error increase"] == "not applicable"
    assert "fail" not in checks.values()


def test_the_gate_states_the_evaluations_reason_for_a_check_that_does_not_apply(judged):
    reason = "the recognizer cannot transcribe the recordings"
    answer = judged({**GOOD, "character_error_increase": None}, reason=reason)
    checks = judged.registry.version(NAME, answer.champion).checks
    assert checks["character error increase"] == f"not applicable: {reason}"


def test_nothing_measured_is_not_a_pass():
    checks = results(gate.threshold_checks(dict.fromkeys(GOOD), CONFIG))
    assert checks["measured at all"] == "fail"


@pytest.fixture
def judged(state, tmp_path, monkeypatch):
    """A registry whose versions differ only in their metrics, and the gate run on one of them."""
    double = MlflowDouble()
    monkeypatch.setattr("components.registry.client", lambda state: double)
    registry = Registry(state)
    registry.client.create_registered_model(NAME)
    monkeypatch.setattr("components.smoke_test.smoke_test", lambda version: None)
    folders = {}

    def examined(state, registry, candidate, opponents, corpus, store, settings):
        found = {version.number: VoiceEvaluation.read(folders[version.number]) for version in (candidate, *opponents)}
        return found.pop(candidate.number), found

    monkeypatch.setattr(gate, "examine", examined)
    sent: dict[str, list[Path]] = {}

    def send(state, spool, metrics, artifacts, folder):
        """Stands in for the delivery to the training's run in MLflow."""
        assert (spool, metrics) == (tmp_path / SPOOL, {})
        assert all(path.is_file() for path in artifacts)
        sent[folder] = artifacts

    monkeypatch.setattr(gate, "append_to_run", send)

    def judge(
        values: dict,
        number: str = "",
        settings: dict | None = None,
        changes: dict | None = None,
        reason: str = "",
        **evaluation: object,
    ) -> GateOutput:
        if not number:
            number = registry.client.create_model_version(NAME, "s3://voices/voice").version
            registry.client.set_registered_model_alias(NAME, CANDIDATE, number)
            folders[number] = tmp_path / f"evaluation-{number}"
            write_json(folders[number] / "metrics.json", gate_evaluation(values, reason))
        records = {"evaluation.evaluation": folders[number], "registration.version": number, **(changes or {})}
        names = ("data", "features", "training", "evaluation", "registration")
        config = Config.model_validate({"registry": settings or {}, "evaluation": evaluation})
        return gate.run(
            **step_inputs(tmp_path, names, records),
            settings=GateSettings.of(config).to_json(),
            evaluate_settings=EvaluateSettings.of(config).to_json(),
        )

    judge.registry = registry
    judge.folders = folders
    judge.sent = sent
    return judge


def test_the_first_good_version_becomes_champion(judged):
    answer = judged(GOOD)
    assert answer.champion == "1"
    assert judged.registry.version(NAME, CHAMPION).checks["alignment monotonicity"].startswith("pass")


def test_a_failed_gate_promotes_nothing_and_leaves_a_report(judged):
    judged(GOOD)
    with pytest.raises(gate.GateFailed, match="version 2 was not promoted") as caught:
        judged({**GOOD, "mel_cepstral_distortion": 99.0})
    assert judged.registry.aliases(NAME)[CHAMPION] == "1"
    report = json.loads(caught.value.report.read_text())
    assert report["passed"] is False
    assert report["champion"] == "1"
    assert {check["name"] for check in report["checks"] if check["result"] == "fail"} == {
        "mel cepstral distortion",
        "mel cepstral distortion against version 1",
    }


def test_the_results_of_a_passed_gate_show_decision_metrics_and_reasons(judged):
    shown = gate.results(judged({**GOOD, "character_error_increase": None}))
    kept = {name: value for name, value in GOOD.items() if name != "character_error_increase"}
    assert shown.metrics == {"passed": 1.0, **kept}
    assert "## m version 1 passed the gate\n\nChampion: version 1; before: none.\n" in shown.markdown
    assert "| mel cepstral distortion | pass | 6.000, must be at most" in shown.markdown
    assert "| character error increase | not applicable | was not measured" in shown.markdown


def test_a_failed_gate_writes_its_results_too_the_second_time_from_its_report(judged, tmp_path, monkeypatch):
    judged(GOOD)
    monkeypatch.setattr(runner, "log_to_output", lambda: None)
    inputs = {}
    with monkeypatch.context() as patch:
        patch.setattr(gate, "run", lambda **given: inputs.update(given))
        judged({**GOOD, "mel_cepstral_distortion": 99.0})
    for attempt in ("first", "second"):
        shown = {name: SimpleNamespace(path=tmp_path / attempt / name, metadata={}) for name in (METRICS, MARKDOWN)}
        with pytest.raises(SystemExit):
            runner.run_step("gate", SimpleNamespace(path=tmp_path / "record", metadata={}), shown, **inputs)
        assert shown[METRICS].metadata == {**GOOD, "mel_cepstral_distortion": 99.0, "passed": 0.0}
        text = (tmp_path / attempt / MARKDOWN).read_text()
        assert "version 2 did not pass the gate\n\nChampion: version 1; before: version 1." in text
        assert "| mel cepstral distortion | fail | 99.000" in text
    assert not (tmp_path / "record").exists()


def test_a_reason_that_someone_typed_stays_in_its_cell():
    assert gate._cell("clicks | hums\n<script>") == "clicks \\| hums &lt;script&gt;"


def test_a_failure_is_reused_until_one_of_its_inputs_changes(judged, monkeypatch):
    judged(GOOD)
    with pytest.raises(gate.GateFailed) as first:
        judged({**GOOD, "mel_cepstral_distortion": 7.0})
    measured, examine = [], gate.examine
    monkeypatch.setattr(gate, "examine", lambda *given: measured.append("again") or examine(*given))
    with pytest.raises(gate.GateFailed, match="nothing that the checks use has changed") as again:
        judged({}, number="2")
    assert str(again.value).splitlines()[1:] == str(first.value).splitlines()[1:]
    assert not measured
    with pytest.raises(gate.GateFailed, match="against version 1") as anew:
        judged({}, number="2", settings={"mel_cepstral_distortion_margin": 0.4})
    assert "checks use" not in str(anew.value)
    assert measured == ["again"]


def test_a_change_of_any_input_runs_the_checks_again(judged, edit):
    """The changes are cumulative; between two of them, the recorded failure is reused."""
    settings, changed, evaluation = {}, {}, {}

    def answer() -> str:
        with pytest.raises(gate.GateFailed) as caught:
            judged({}, number="2", settings=settings, changes=changed, **evaluation)
        return "record" if "nothing that the checks use has changed" in str(caught.value) else "judged"

    def other_metrics() -> None:
        measured = json.loads((judged.folders["2"] / "metrics.json").read_text())
        measured["gate"]["alignment_monotonicity"]["value"] = 0.97
        write_json(judged.folders["2"] / "metrics.json", measured)

    changes = {
        "settings": lambda: settings.update(mel_cepstral_distortion_margin=0.4),
        "metrics": other_metrics,
        "settings of the evaluation": lambda: evaluation.update(max_clips=3),
        "data": lambda: changed.update({"data.data_hash": "another.dir"}),
        "data of the evaluation": lambda: changed.update({"data.examination_hash": "another.dir"}),
        "features": lambda: changed.update({"features.examination_hash": "another"}),
        "champion": lambda: judged({**GOOD, "mel_cepstral_distortion": 5.0}),
        "rollback": lambda: judged.registry.client.set_model_version_tag(NAME, "2", ROLLED_BACK, "clicks"),
        "reason": lambda: judged.registry.client.set_model_version_tag(NAME, "2", ROLLED_BACK, "hisses"),
        "code": lambda: edit("components/gate/metrics.py"),
        "code of evaluation": lambda: edit("model/evaluation/metrics.py"),
    }
    judged(GOOD)
    judged({**GOOD, "mel_cepstral_distortion": 5.9})  # version 2, champion for a while
    judged.registry.promote(NAME, "1", "2", "by hand")
    settings["max_mel_cepstral_distortion"] = 1.0  # so that it fails, whoever is champion
    answers = {"first": answer()}
    settings["on_promote"] = "true"  # a command that decides nothing
    for name, change in changes.items():
        assert answer() == "record", name
        change()
        answers[name] = answer()
    assert answers == dict.fromkeys(["first", *changes], "judged")


def test_a_decision_names_the_champion_that_it_was_compared_with(judged):
    judged(GOOD)
    for better in (5.0, 4.0):
        with pytest.raises(gate.GateFailed) as caught:
            judged({**GOOD, "mel_cepstral_distortion": 7.0})
        champion = judged.registry.aliases(NAME)[CHAMPION]
        assert json.loads(caught.value.report.read_text())["champion_before"] == champion
        assert f"champion: {champion}" in str(caught.value)
        judged({**GOOD, "mel_cepstral_distortion": better})


def test_decisions_on_two_versions_are_stored_separately(judged):
    with pytest.raises(gate.GateFailed) as one:
        judged(GOOD, settings={"max_mel_cepstral_distortion": 1.0})
    with pytest.raises(gate.GateFailed) as two:
        judged(GOOD, settings={"max_mel_cepstral_distortion": 1.0})
    assert one.value.report != two.value.report
    assert json.loads(one.value.report.read_text())["version"] == "1"


def test_a_worse_version_within_the_thresholds_does_not_replace_the_champion(judged):
    judged(GOOD)
    with pytest.raises(gate.GateFailed, match="against version 1"):
        judged({**GOOD, "mel_cepstral_distortion": 7.0})
    assert judged({**GOOD, "mel_cepstral_distortion": 5.0}).champion == "3"


def test_ten_slightly_worse_candidates_lose_one_margin_in_all(judged):
    """Each is within the margin of the champion before it; the reference remains the best champion."""
    judged(GOOD)
    distortion = GOOD["mel_cepstral_distortion"]
    for _ in range(10):
        worse = distortion + 0.1
        try:
            judged({**GOOD, "mel_cepstral_distortion": worse})
        except gate.GateFailed:
            continue
        distortion = worse
    assert judged.registry.aliases(NAME)[CHAMPION] == "3"
    assert distortion == pytest.approx(6.2)
    best_in = {entry.operation.version: entry.operation.best_in for entry in judged.registry.history(NAME)}
    assert best_in["1"] == COMPARED
    assert "mel_cepstral_distortion" not in best_in["3"]


def test_the_history_names_the_evidence_of_a_promotion(judged):
    judged(GOOD)
    [entry] = judged.registry.history(NAME)
    version = judged.registry.version(NAME, "1")
    [(folder, files)] = judged.sent.items()
    assert [path.name for path in files] == ["gate.json", "decision.html"]
    assert entry.operation.evidence == {
        "evaluation": f"runs:/{version.run_id}/evaluation",
        "sentences": "5e7" * 5,
        "decision": f"runs:/{version.run_id}/gate/{json.loads(files[0].read_text())['judged_on'][:12]}",
    }
    assert version.tags["decision"] == entry.operation.evidence["decision"]
    assert not entry.operation.forced
    assert version.tags["decision"].endswith(f"/{folder}")


def test_a_promotion_is_announced_and_a_failed_gate_is_not(judged, tmp_path):
    told = tmp_path / "told"
    hook = {"on_promote": f"tee {told}"}
    judged(GOOD, settings=hook)
    assert json.loads(told.read_text())["version"] == "1"
    told.unlink()
    with pytest.raises(gate.GateFailed):
        judged({**GOOD, "mel_cepstral_distortion": 99.0}, settings=hook)
    assert not told.exists()


def test_a_better_champion_is_the_reference_of_the_next_candidate(judged):
    judged(GOOD)
    judged({**GOOD, "mel_cepstral_distortion": 5.0})
    with pytest.raises(gate.GateFailed, match="mel cepstral distortion against version 2"):
        judged({**GOOD, "mel_cepstral_distortion": 5.5})
    judged.registry.rollback(NAME, "clicks")
    assert judged({**GOOD, "mel_cepstral_distortion": 5.9}).champion == "4"


def test_every_metric_can_stop_a_promotion(judged):
    judged(GOOD)
    with pytest.raises(gate.GateFailed, match="character error against version 1"):
        judged({**GOOD, "character_error_increase": 0.34})


def test_the_table_shows_champion_reference_candidate_and_interval(judged):
    judged(GOOD)
    shown = gate.results(judged({**GOOD, "mel_cepstral_distortion": 5.0})).markdown
    assert "| metric | champion | best so far | candidate | difference (95 % interval) | margin |" in shown
    assert "| mel cepstral distortion | 6.000 | 6.000 (version 1) | 5.000 | -1.000 (" in shown


def test_judging_the_champion_again_changes_nothing(judged):
    judged(GOOD)
    assert judged(GOOD, number="1").champion == "1"


def test_the_gate_does_not_undo_a_rollback(judged):
    judged(GOOD)
    judged({**GOOD, "mel_cepstral_distortion": 5.0})
    judged.registry.rollback(NAME, "clicks")
    with pytest.raises(gate.GateFailed, match=r"rolled back: .*clicks"):
        judged({}, number="2")
    assert judged.registry.aliases(NAME)[CHAMPION] == "1"


def test_the_checks_of_a_version_are_those_of_its_latest_gate(judged):
    with pytest.raises(gate.GateFailed):
        judged(GOOD, settings={"max_mel_cepstral_distortion": 1.0})
    judged(GOOD, number="1")
    checks = judged.registry.version(NAME, "1").checks
    assert checks
    assert not [name for name, result in checks.items() if result.startswith("fail")]


class Parrot:
    """Voice that synthesizes the sentences of a store by copy-synthesis, with wrong sound and alignment in some splits.

    Args:
        store: Features of the sentences.
        spoiled: Splits.
    """

    def __init__(self, store: FeatureStore, spoiled: tuple[str, ...]) -> None:
        self.store, self.spoiled = store, spoiled
        self.speakers, self.languages, self.training_sentences = store.speakers, store.languages, None
        self.vocoder = build_vocoder(Config(vocoder={"griffin_lim_iterations": 1}).vocoder, store.audio)
        self.positions = {(clip.text, clip.speaker): position for position, clip in enumerate(store.clips)}
        self.splits = {store.clip(i).mel.tobytes(): clip.split for i, clip in enumerate(store.clips)}

    def synthesize(self, text, language="", speaker="", reference=None):
        features = self.store.clip(self.positions[text, speaker])
        mel = features.mel[:, ::-1].copy() if self._spoils(features.mel) else features.mel
        durations, _ = self.align(features.ids, features.mel)
        return SimpleNamespace(samples=self.vocoder(mel), mel=mel, durations=durations, phones=["a"] * len(durations))

    def align(self, ids, mel):
        durations = np.diff(np.round(np.linspace(0, len(mel), len(ids) + 1)).astype(int))
        soft = np.eye(len(ids))[np.repeat(np.arange(len(ids)), durations)]
        return durations, soft[::-1] if self._spoils(mel) else soft

    def _spoils(self, mel) -> bool:
        return self.splits[mel.tobytes()] in self.spoiled


@pytest.fixture(scope="module")
def evaluated(generated_features, generated_corpus, tmp_path_factory):
    """Returns a function from the splits whose clips are synthesized badly to the metrics of the gate."""
    store = FeatureStore(generated_features)
    limits = {"max_clips": 2, "max_training_clips": 2, "texts": 0, "recognizer": "none"}
    config = Config.model_validate({"evaluation": limits})

    def evaluate(*spoiled):
        folder = tmp_path_factory.mktemp("evaluation")
        return gate_metrics(evaluate_voice(Parrot(store, spoiled), store, generated_corpus, config, folder))

    return evaluate


def test_only_sentences_that_the_voice_never_saw_decide(evaluated, judged):
    """Metrics of sentences that the voice was trained on do not count, whether good or bad."""
    clean, good, bad = evaluated(), evaluated("train"), evaluated("validation", "test")
    assert good == clean
    limits = {
        "max_mel_cepstral_distortion": (good["mel_cepstral_distortion"] + bad["mel_cepstral_distortion"]) / 2,
        "min_alignment_monotonicity": (good["alignment_monotonicity"] + bad["alignment_monotonicity"]) / 2,
    }
    assert judged(good, settings=limits).champion == "1"
    with pytest.raises(gate.GateFailed) as caught:
        judged(bad, settings=limits)
    checks = json.loads(caught.value.report.read_text())["checks"]
    failed = {item["name"] for item in checks if item["result"] == "fail"}
    assert {"mel cepstral distortion", "alignment monotonicity"} <= failed


def test_a_champion_that_moves_while_the_candidate_is_judged_stops_the_promotion(judged, monkeypatch):
    judged(GOOD)
    judged({**GOOD, "mel_cepstral_distortion": 5.0})

    examine = gate.examine

    def examined(*given):
        judged.registry.promote(NAME, "1", None, "by hand, meanwhile")
        return examine(*given)

    monkeypatch.setattr(gate, "examine", examined)
    with pytest.raises(RegistryError, match=r"now version 1, but the comparison was with 2"):
        judged({**GOOD, "mel_cepstral_distortion": 4.0})
    assert judged.registry.aliases(NAME)[CHAMPION] == "1"


def test_a_voice_that_does_not_speak_is_not_promoted(judged, monkeypatch):
    judged(GOOD)
    tried = []

    def silent(version):
        tried.append(version.number)
        raise RegistryError("spoke silence")

    monkeypatch.setattr("components.smoke_test.smoke_test", silent)
    with pytest.raises(RegistryError, match="silence"):
        judged({**GOOD, "mel_cepstral_distortion": 5.0})
    assert tried == ["2"]
    assert judged.registry.aliases(NAME)[CHAMPION] == "1"


def test_a_candidate_with_a_failed_check_does_not_reach_its_smoke_test(judged, monkeypatch):
    monkeypatch.setattr("components.smoke_test.smoke_test", lambda version: pytest.fail("was tried"))
    with pytest.raises(gate.GateFailed):
        judged({**GOOD, "mel_cepstral_distortion": 99.0})


def test_a_promotion_can_require_listeners(judged):
    judged(GOOD)
    required = {"require_listening": 1}
    with pytest.raises(gate.GateFailed, match="listening test: nobody has listened yet"):
        judged({**GOOD, "mel_cepstral_distortion": 5.0}, settings=required)
    heard = {"against": "1", "listeners": 1, "answers": 9, "preferred": 0.7, "low": 0.5, "high": 0.9}
    judged.registry.client.set_model_version_tag(NAME, "2", LISTENING, json.dumps(heard))
    assert judged({}, number="2", settings=required).champion == "2"
