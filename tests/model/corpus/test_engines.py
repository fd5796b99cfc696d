"""Engines of the generated corpus: the best installed one is chosen and named, and speaks reproducibly."""

import logging
import sys
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from model.config.data import CorpusConfig
from model.corpus import engines
from model.corpus.engines import ESPEAK, Flite, Pico, choose_engine, log_choice, scale_formants
from model.corpus.readers import generated
from model.corpus.sentences import read_sentences
from model.corpus.stage_code import stage_hashes
from model.errors import CorpusError

TEXTS = (
    "The morning train was late again today.",
    "Please put the kettle on and sit down.",
    "A cold wind was blowing.",
)


@pytest.fixture
def installed(monkeypatch):
    """Sets the versions of flite and pico; `None` means that the engine is not installed."""

    def install(flite: str | None = None, pico: str | None = None) -> None:
        monkeypatch.setattr(Flite, "version", lambda self: flite)
        monkeypatch.setattr(Pico, "version", lambda self: pico)

    install()
    return install


@pytest.mark.parametrize(
    ("flite", "pico", "english"),
    [("2.2", "0.3.2", "flite"), ("2.2", None, "flite"), (None, "0.3.2", "pico"), (None, None, "espeak")],
)
def test_auto_is_the_most_intelligible_engine_that_is_installed(installed, flite, pico, english):
    installed(flite, pico)
    chosen = generated.choose_engines(CorpusConfig(generated_voices={"en": 2, "fa": 1}))
    assert {language: engine.name for language, engine in chosen.items()} == {"en": english, "fa": "espeak"}


def test_auto_takes_an_engine_with_enough_voices(installed):
    installed("2.2", "0.3.2")
    assert choose_engine("en", "auto", 8).name == "flite"
    with pytest.raises(CorpusError, match=r"9 voices .* flite has 8; lower it in corpus.generated_voices"):
        choose_engine("en", "auto", 9)
    with pytest.raises(CorpusError, match="pico has 8"):
        choose_engine("en", "pico", 9)


@pytest.mark.parametrize("language", ["de", "es", "fr", "it"])
def test_german_french_spanish_and_italian_are_spoken_by_pico_where_it_is_installed(installed, language):
    installed("2.2", "0.3.2")
    assert [choose_engine(language, wanted, 4).name for wanted in ("auto", "pico", "flite", "espeak")] == [
        "pico", "pico", "espeak", "espeak",
    ]  # fmt: skip
    assert choose_engine(language, "auto", 5).name == "espeak"
    with pytest.raises(CorpusError, match=f"5 voices of language '{language}' are wanted, but pico has 4"):
        choose_engine(language, "pico", 5)
    installed("2.2")
    assert choose_engine(language, "auto", 4).name == "espeak"
    with pytest.raises(CorpusError, match=r"corpus.engine is pico, .*pip install .*ttspico"):
        choose_engine(language, "pico", 4)


def test_an_engine_with_too_few_voices_is_passed_over(installed, monkeypatch):
    installed("2.2", "0.3.2")
    monkeypatch.setattr(Flite, "voices", lambda self, language: ("slt",))
    assert choose_engine("en", "auto", 2).name == "pico"


@pytest.mark.parametrize("factor", [0.8, 1.0, 1.25])
def test_scaled_formants_move_by_the_factor_and_shorten_the_sound(factor):
    rate, tone = 16000, 1000.0
    scaled = scale_formants(np.sin(2 * np.pi * tone * np.arange(rate) / rate).astype(np.float32), rate, factor)
    assert len(scaled) == pytest.approx(rate / factor, abs=1)
    spectrum = np.abs(np.fft.rfft(scaled * np.hanning(len(scaled))))
    assert np.argmax(spectrum) * rate / len(scaled) == pytest.approx(tone * factor, rel=0.01)


@pytest.mark.parametrize(("name", "fix"), [("flite", "apt-get install flite"), ("pico", "pip install .*ttspico")])
def test_an_engine_that_is_not_installed_is_an_error_with_its_installation(installed, name, fix):
    with pytest.raises(CorpusError, match=f"corpus.engine is {name}, .*{fix}"):
        choose_engine("en", name, 1)


@pytest.mark.parametrize("wanted", ["auto", "flite", "pico", "espeak"])
@pytest.mark.parametrize("language", ["fa", "nl"])
def test_other_languages_are_always_spoken_by_espeak(installed, wanted, language):
    installed("2.2", "0.3.2")
    assert choose_engine(language, wanted, 1) is ESPEAK


def test_the_log_names_the_engine_and_the_better_ones_that_are_missing(installed, caplog):
    caplog.set_level(logging.INFO, engines.__name__)

    def logged(wanted: str) -> list[tuple[str, str]]:
        caplog.clear()
        log_choice("en", wanted, choose_engine("en", wanted, 2))
        return [(record.levelname, record.getMessage()) for record in caplog.records]

    used, missing = logged("auto")
    assert used == ("INFO", f"en: spoken by espeak {ESPEAK.version()}")
    assert missing[0] == "WARNING"
    assert "flite (apt-get install flite) or pico (pip install" in missing[1]
    assert [level for level, _ in logged("espeak")] == ["INFO"]  # chosen, so no advice
    installed(pico="0.3.2")
    assert "flite (apt-get install flite)" in logged("auto")[1][1]
    assert "or pico" not in logged("auto")[1][1]
    installed(flite="2.2")
    assert logged("auto") == [("INFO", "en: spoken by flite 2.2")]


def test_the_log_advises_only_engines_of_the_language(installed, caplog):
    for language in ("de", "fa"):
        log_choice(language, "auto", choose_engine(language, "auto", 2))
    (advice,) = (record.getMessage() for record in caplog.records if record.levelname == "WARNING")
    assert advice.startswith("de: spoken by espeak; better if installed: pico (pip install")
    assert "flite" not in advice


def test_ingest_runs_again_when_another_engine_speaks(installed):
    def hashes(**settings: object) -> dict[str, str]:
        return stage_hashes(CorpusConfig(**settings))

    espeak = hashes()
    assert espeak == hashes(engine="espeak") == hashes()
    installed(pico="0.3.2")
    pico = hashes()
    installed(pico="0.3.3")
    updated = hashes()
    assert len({espeak["ingest"], pico["ingest"], updated["ingest"]}) == 3
    assert hashes(engine="espeak") == espeak
    assert {name: value for name, value in pico.items() if name != "ingest"} == {
        name: value for name, value in espeak.items() if name != "ingest"
    }
    recorded = hashes(format="ljspeech")
    installed()
    assert hashes(format="ljspeech") == recorded


def test_speakers_have_the_same_names_with_every_engine(installed):
    def named() -> list[tuple[str, str, str]]:
        utterances = generated.read(CorpusConfig(sentences_per_voice=3)).utterances
        return [(utterance.id, utterance.speaker, utterance.text) for utterance in utterances]

    names = named()
    assert {speaker for _, speaker, _ in names} == {"en_1", "en_2", "fa_1"}
    installed(pico="0.3.2")
    assert named() == names
    installed(flite="2.2")
    assert named() == names


@pytest.fixture
def pico() -> Pico:
    engine = Pico()
    if engine.version() is None:
        pytest.skip("ttspico is not installed")
    return engine


def test_pico_speaks_a_sentence_alike_from_any_thread_and_after_any_other(pico):
    def speak(voice_and_text: tuple[str, str]) -> np.ndarray:
        sound = pico.speak(voice_and_text[1], voice_and_text[0], "en")
        assert sound.sample_rate == 16000
        return sound.samples

    wanted = [(voice, text) for voice in pico.voices("en") for text in TEXTS]
    first = [speak(item) for item in wanted]
    with ThreadPoolExecutor(4) as pool:
        again = list(pool.map(speak, reversed(wanted)))
    for item, samples, other in zip(wanted, first, reversed(again), strict=True):
        np.testing.assert_array_equal(samples, other, err_msg=str(item))


@pytest.mark.parametrize(("language", "voices"), [("en", 8), ("de", 4), ("es", 4), ("fr", 4), ("it", 4)])
def test_picos_voices_differ_and_none_is_clipped(pico, language, voices):
    text = TEXTS[0] if language == "en" else read_sentences("", language)[0]
    sounds = [pico.speak(text, voice, language).samples for voice in pico.voices(language)]
    assert len(sounds) == voices
    for samples in sounds:
        assert 1.0 < len(samples) / 16000 < 5.0
        assert 0.2 < np.abs(samples).max() < 0.999
    lengths = [len(samples) for samples in sounds]
    assert max(lengths) < 1.25 * min(lengths)  # scaled formants do not change the tempo
    spectra = [np.abs(np.fft.rfft(samples, 65536)) / np.linalg.norm(samples) for samples in sounds]
    assert all(np.linalg.norm(a - b) > 10 for i, a in enumerate(spectra) for b in spectra[i + 1 :])


def test_pico_reads_what_the_tokens_say(pico):
    """Numbers and signs are written out before, and markup is not interpreted."""
    numbers, words = (
        pico.speak(text, "en-US", "en").samples for text in ("It is 25 < 30.", "It is twenty five less than thirty.")
    )
    np.testing.assert_array_equal(numbers, words)


@pytest.mark.parametrize("error", [ImportError("no ctts"), RuntimeError("no voices")])
def test_pico_without_its_library_or_voices_counts_as_not_installed(monkeypatch, error):
    def fail(locale: str) -> None:
        raise error

    monkeypatch.setitem(sys.modules, "ttspico", SimpleNamespace(TtsEngine=fail))
    engines._pico_version.cache_clear()
    try:
        assert Pico().version() is None
    finally:
        engines._pico_version.cache_clear()


@pytest.mark.parametrize(
    ("speak", "message"),
    [(lambda text: b"", "no sound"), (lambda text: 1 / 0, "pico failed")],
    ids=["silent", "failing"],
)
def test_a_sentence_that_pico_cannot_speak_is_an_error_that_names_it(monkeypatch, speak, message):
    def create(locale: str) -> SimpleNamespace:
        def run(text: str) -> bytes:
            try:
                return speak(text)
            except ZeroDivisionError as error:
                raise RuntimeError("Text to speech failed") from error

        return SimpleNamespace(speak=run)

    monkeypatch.setitem(sys.modules, "ttspico", SimpleNamespace(TtsEngine=create))
    with pytest.raises(CorpusError, match=f"{message}.*'Hello.'.*corpus.engine"):
        Pico().speak("Hello.", "en-US", "en")


@pytest.fixture
def flite(tmp_path, monkeypatch):
    """A program `flite` that accepts exactly the arguments of the real one, and writes a second of noise."""
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 16000)
    soundfile.write(tmp_path / "noise.wav", noise, 16000, subtype="PCM_16")
    program = tmp_path / "bin" / "flite"
    program.parent.mkdir()
    program.write_text(
        "#!/bin/sh\n"
        'if [ "$1" = --version ]; then echo "  version: flite-2.2-current Sep 2018"; exit 0; fi\n'
        'test "$1 $3 $5 $7" = "-voice --setf -t -o" && test $# = 8 || { echo "usage" >&2; exit 2; }\n'
        'case "$2" in slt|rms|awb|kal16) ;; *) echo "no voice $2" >&2; exit 1;; esac\n'
        'case "$4" in duration_stretch=[01].*) ;; *) echo "usage" >&2; exit 2;; esac\n'
        f'case "$6" in *twenty*) ;; *) echo "not written out" >&2; exit 3;; esac\n'
        f'cp "{tmp_path}/noise.wav" "$8"\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    return Flite()


def test_flite_is_run_as_its_program_wants(flite):
    assert flite.version() == "2.2-current"
    assert choose_engine("en", "auto", 1).name == "flite"
    for voice in flite.voices("en"):
        sound = flite.speak("It is 20.", voice, "en")
        factor = float(voice.partition(" ")[2] or 1)
        assert (sound.sample_rate, len(sound.samples)) == (16000, pytest.approx(16000 / factor, abs=1))
    with pytest.raises(CorpusError, match=r"flite failed on 'It is 20\.' \(exit status 1\): no voice kal"):
        flite.speak("It is 20.", "kal", "en")


def test_flite_that_is_not_on_the_path_is_not_installed(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert Flite().version() is None
