"""`myxtts registry` on a registry with a voice that can synthesize."""

import json
import re

import pytest
from evaluated_voice import DATA, evaluated_voice

from components.gate.comparison import best_versions
from components.register.run import run as register
from components.registry import Registry

NAME = "myxtts-toy-xtiny"
GOOD = {"mel_cepstral_distortion": 6.25, "character_error_increase": 0.125, "alignment_monotonicity": 0.96875}


@pytest.fixture
def registry(state) -> Registry:
    """Three versions without files; the third is the candidate and failed its gate."""
    found = Registry(state)
    found.client.create_registered_model(NAME)
    for number, data in ((1, "d1"), (2, "d1"), (3, "d3")):
        tags = {"metric.mel_cepstral_distortion": str(5.0 + number), "dvc.data": data}
        found.client.create_model_version(NAME, f"file:///nowhere/{number}", tags=tags)
    found.client.set_model_version_tag(
        NAME, "3", "gate", '{"alignment monotonicity": "fail: 0.200, must be at least 0.5"}'
    )
    found.client.set_model_version_tag(
        NAME, "2", "gate", '{"alignment monotonicity": "pass: 0.900, must be at least 0.5"}'
    )
    found.client.set_model_version_tag(NAME, "2", "metric.character_error_increase", "0.25")
    found.client.set_registered_model_alias(NAME, "candidate", "3")
    found.promote(NAME, "1", "", "first")
    return found


def test_a_registered_voice_is_promoted_after_it_has_spoken(state, untrained_voice, tmp_path, myxtts):
    """The voice is registered, loaded as by a server, smoke-tested and promoted."""
    register(**evaluated_voice(state, untrained_voice, tmp_path / "evaluation", GOOD), name=NAME)
    assert myxtts("registry", "promote", NAME, "--reason", "sounds well")[0] == 1  # its gate has not run
    forced = myxtts("registry", "promote", NAME, "--force", "--reason", "sounds well")
    assert forced == (0, f"{NAME}: champion is version 1\n", "")
    version = Registry(state).version(NAME, "champion")
    assert version.aliases == ("candidate", "champion")
    assert version.tags["promoted"].endswith(" forced: sounds well")
    status, said, _ = myxtts("registry", "show", NAME)
    assert status == 0
    assert f"{NAME} version 1  @candidate @champion" in said
    assert DATA in said


def test_a_voice_that_cannot_be_loaded_is_not_promoted(registry, myxtts):
    status, said, complaint = myxtts("registry", "promote", NAME, "2")
    assert status == 2
    assert "champion is" not in said
    assert complaint.startswith("myxtts: ")
    assert registry.aliases(NAME) == {"candidate": "3", "champion": "1"}


@pytest.fixture
def speaking(monkeypatch) -> list[str]:
    """Returns the list of versions whose smoke test ran; all of them pass."""

    smoke_tested: list[str] = []
    monkeypatch.setattr("components.smoke_test.smoke_test", lambda version: smoke_tested.append(version.number))
    return smoke_tested


def test_the_candidate_is_promoted_over_a_failed_gate_only_by_force(registry, speaking, myxtts):
    status, said, complaint = myxtts("registry", "promote", NAME)
    assert (status, said) == (1, "")
    assert "alignment monotonicity: fail: 0.200" in complaint
    assert "--force" in complaint
    assert registry.aliases(NAME)["champion"] == "1"
    assert speaking == []
    status, _, complaint = myxtts("registry", "promote", NAME, "--force")
    assert status == 2
    assert "--force requires --reason" in complaint
    forced = myxtts("registry", "promote", NAME, "--force", "--reason", "the corpus is a new one")
    assert forced[:2] == (0, f"{NAME}: champion is version 3\n")
    assert registry.aliases(NAME) == {"candidate": "3", "champion": "3", "previous": "1"}
    assert speaking == ["3"]
    assert registry.version(NAME, "3").tags["promoted"].endswith(" forced: the corpus is a new one")


@pytest.mark.parametrize(
    ("tags", "obstacle"),
    [
        ({}, "its gate has not run"),
        ({"gate": '{"mel": "pass: 5"}', "rolled_back": "yesterday clicks"}, "rolled back: yesterday clicks"),
    ],
)
def test_a_version_that_was_not_judged_or_was_rolled_back_is_promoted_only_by_force(
    registry, speaking, myxtts, tags, obstacle
):
    registry.client.create_model_version(NAME, "file:///nowhere/4", tags=tags)
    status, said, complaint = myxtts("registry", "promote", NAME, "4", "--reason", "why not")
    assert (status, said) == (1, "")
    assert obstacle in complaint
    assert registry.aliases(NAME)["champion"] == "1"
    assert myxtts("registry", "promote", NAME, "4", "--force", "--reason", "why not")[0] == 0


def test_a_forced_champion_is_the_only_reference_of_later_candidates(registry, speaking, myxtts):
    registry.promote(NAME, "2", None, "better", best_in=["pitch_error"])
    myxtts("registry", "promote", NAME, "1", "--force", "--reason", "not judged")
    myxtts("registry", "promote", NAME, "2")
    assert set(best_versions(registry.history(NAME), registry.versions(NAME), "2").values()) == {"1"}
    myxtts("registry", "promote", NAME, "3", "--force", "--reason", "the corpus is a new one")
    assert set(best_versions(registry.history(NAME), registry.versions(NAME), "3").values()) == {"3"}


def test_a_passed_gate_needs_no_force(registry, speaking, myxtts):
    assert myxtts("registry", "promote", NAME, "2")[:2] == (0, f"{NAME}: champion is version 2\n")
    assert registry.aliases(NAME)["champion"] == "2"


def test_rollback_says_which_version_is_champion_again(registry, speaking, myxtts):
    myxtts("registry", "promote", NAME, "2")
    answer = myxtts("registry", "rollback", NAME, "--reason", "clicks")
    assert answer == (0, f"{NAME}: champion is version 1 again (was 2)\n", "")
    assert registry.aliases(NAME) == {"candidate": "3", "champion": "1"}
    assert registry.version(NAME, "2").tags["rolled_back"].endswith(" clicks")
    status, _, complaint = myxtts("registry", "rollback", NAME)
    assert status == 2
    assert "no previous champion" in complaint


def test_the_history_says_who_changed_what_when_with_which_code_and_why(registry, speaking, myxtts, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "anna")
    monkeypatch.setenv("MYXTTS_GIT_SHA", "abc123-dirty")
    monkeypatch.setattr("socket.gethostname", lambda: "host7")
    registry.client.set_model_version_tag(NAME, "3", "decision", "runs:/7/gate/0a1b")
    myxtts("registry", "promote", NAME, "2")
    monkeypatch.setenv("MYXTTS_SERVICE_ACCOUNT", "myxtts-runner")
    monkeypatch.setenv("MYXTTS_NAMESPACE", "speech")
    myxtts("registry", "promote", NAME, "3", "--force", "--reason", "the corpus is a new one")
    myxtts("registry", "rollback", NAME, "--reason", "clicks")
    status, said, _ = myxtts("registry", "history", NAME)
    assert status == 0
    first, second, forced, rollback = [part.splitlines() for part in re.split(r"\n(?=   \d)", said)]
    assert first[0].endswith("Z  promote version 1, before: none")
    assert second[0].endswith("Z  promote version 2, before: 1")
    assert second[1:] == ["      by: anna on host7, commit abc123-dirty", "      why: promoted by hand"]
    assert forced[0].endswith("Z  forced promote version 3, before: 2")
    assert forced[1].strip() == "by: anna on host7 (system:serviceaccount:speech:myxtts-runner), commit abc123-dirty"
    assert forced[2].strip() == "why: forced: the corpus is a new one"
    assert forced[3].strip() == "decision: runs:/7/gate/0a1b"
    assert forced[4].strip() == "overruled: alignment monotonicity: fail: 0.200, must be at least 0.5"
    assert rollback[0].endswith("Z  rollback to version 2, before: 3")
    listed = json.loads(myxtts("registry", "history", NAME, "--json")[1])
    assert [(item["number"], item["forced"], item["outcome"]) for item in listed] == [
        (1, False, "applied"),
        (2, False, "applied"),
        (3, True, "applied"),
        (4, False, "applied"),
    ]
    assert listed[2]["author"]["user"] == "anna"


def test_promotion_and_rollback_by_hand_are_announced(registry, speaking, myxtts, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(f"registry:\n  on_promote: tee -a {tmp_path}/told\n")
    myxtts("registry", "promote", NAME, "2")
    myxtts("registry", "rollback", NAME)
    told = (tmp_path / "told").read_text()
    assert re.findall(r'"event": "(\w+)", "model": "[\w-]+", "version": "(\d)"', told) == [
        ("promote", "2"),
        ("rollback", "1"),
    ]
    assert myxtts("registry", "history", NAME)[1].count("announcement: delivered") == 2


def test_the_history_of_an_unknown_model_names_the_known_ones(registry, myxtts):
    status, _, complaint = myxtts("registry", "history", "other")
    assert status == 2
    assert NAME in complaint
    registry.client.create_registered_model("fresh")
    assert myxtts("registry", "history", "fresh")[1] == "fresh: nothing was changed by this program yet\n"


def test_list_shows_aliases_and_metrics_newest_first(registry, myxtts):
    status, said, _ = myxtts("registry", "list")
    lines = said.splitlines()
    assert status == 0
    assert [line.split()[1] for line in lines] == ["3", "2", "1"]
    assert "@candidate" in lines[0]
    assert "@champion" in lines[2]
    assert lines[2].endswith("mel_cepstral_distortion 6.000")
    listed = json.loads(myxtts("registry", "list", NAME, "--json")[1])
    assert [item["number"] for item in listed] == ["3", "2", "1"]
    assert listed[0]["aliases"] == ["candidate"]
    assert listed[1]["metrics"] == {"mel_cepstral_distortion": 7.0, "character_error_increase": 0.25}


def test_list_and_show_print_the_chain_of_ancestors_and_the_licenses(registry, myxtts):
    chain = "models:/base/2 <- models:/base-of-base/1"
    registry.client.set_model_version_tag(NAME, "2", "base.chain", chain)
    registry.client.set_model_version_tag(NAME, "2", "data.license", "CC0-1.0; CC-BY-4.0")
    lines = myxtts("registry", "list")[1].splitlines()
    assert lines[1].endswith(f"<- {chain}")
    assert not any("<-" in line for line in (lines[0], lines[2]))
    said = myxtts("registry", "show", NAME, "2")[1]
    assert f"base.chain {chain}" in " ".join(said.split())
    assert "data.license CC0-1.0; CC-BY-4.0" in " ".join(said.split())


def test_an_empty_registry_says_how_to_fill_it(state, myxtts):
    assert myxtts("registry", "list") == (0, "no versions; `myxtts run` registers the first\n", "")
    status, _, complaint = myxtts("registry", "list", "other")
    assert status == 2
    assert "no model is named 'other'" in complaint


def test_compare_warns_of_numbers_of_different_data(registry, myxtts):
    status, said, _ = myxtts("registry", "compare", NAME)
    assert status == 0
    assert "not comparable" in said
    assert said.splitlines()[1].split() == ["mel_cepstral_distortion", "6.000", "8.000"]
    said = myxtts("registry", "compare", NAME, "1", "2")[1]
    assert "not comparable" not in said
    assert said.splitlines()[1].split() == ["character_error_increase", "-", "0.250"]
    answer = json.loads(myxtts("registry", "compare", NAME, "2", "champion", "--json")[1])
    assert answer == {
        "versions": ["2", "1"],
        "same_data": True,
        "metrics": {"character_error_increase": [0.25, None], "mel_cepstral_distortion": [7.0, 6.0]},
    }
    assert json.loads(myxtts("registry", "show", NAME, "2", "--json")[1])["tags"]["dvc.data"] == "d1"
