"""Bindings of espeak-ng (ctypes): text to phones, and text to speech with the time of every phone.

The package `espeakng-loader` contains the library and its data. The library has global state, so calls are locked.
"""

from __future__ import annotations

import _ctypes
import ctypes
import threading
from ctypes import c_char, c_char_p, c_int, c_long, c_short, c_size_t, c_uint, c_void_p
from itertools import pairwise

import numpy as np

from model.errors import TextError

# Constants of the C interface (speak_lib.h).
_SYNCHRONOUS = 2
_PHONEME_EVENTS, _PHONEMES_AS_IPA, _DONT_EXIT = 0x1, 0x2, 0x8000
_UTF8 = 1
_IPA = 0x2
_SEPARATOR = "_"
_PHONEME_MODE = _IPA | ord(_SEPARATOR) << 8
_EVENT_LIST_END, _EVENT_END, _EVENT_PHONEME = 0, 5, 7

_SEED = 1
"""Seed of espeak-ng's random numbers (breath, flutter), which it seeds with the time by default."""


class _EventId(ctypes.Union):
    _fields_ = [("number", c_int), ("name", c_char_p), ("string", c_char * 8)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", c_int),
        ("unique_identifier", c_uint),
        ("text_position", c_int),
        ("length", c_int),
        ("audio_position", c_int),
        ("sample", c_int),
        ("user_data", c_void_p),
        ("id", _EventId),
    ]


_Callback = ctypes.CFUNCTYPE(c_int, ctypes.POINTER(c_short), c_int, ctypes.POINTER(_Event))


class _Espeak:
    """The loaded and initialized library; at most one per process."""

    def __init__(self) -> None:
        import espeakng_loader

        data = str(espeakng_loader.get_data_path())
        path = espeakng_loader.get_library_path()
        try:
            self.library = ctypes.CDLL(path)
        except OSError as error:
            raise TextError(f"{path}: espeak-ng does not load ({error}); reinstall espeakng-loader") from error
        self.library.espeak_Initialize.argtypes = [c_int, c_int, c_char_p, c_int]
        self.library.espeak_SetVoiceByName.argtypes = [c_char_p]
        self.library.espeak_TextToPhonemes.argtypes = [ctypes.POINTER(c_char_p), c_int, c_int]
        self.library.espeak_TextToPhonemes.restype = c_char_p
        self.library.espeak_Synth.argtypes = [c_char_p, c_size_t, c_uint, c_int, c_uint, c_uint, c_void_p, c_void_p]
        self.library.espeak_ng_SetRandSeed.argtypes = [c_long]
        self.voice = ""
        self.blocks: list[bytes] = []
        self.events: list[tuple[int, int, str]] = []
        self._receive = _Callback(self._on_audio)  # kept alive here: the library has only its address
        flags = _PHONEME_EVENTS | _PHONEMES_AS_IPA | _DONT_EXIT
        self.sample_rate = self.library.espeak_Initialize(_SYNCHRONOUS, 0, data.encode(), flags)
        if self.sample_rate <= 0:
            raise TextError(f"{data}: not usable as data of espeak-ng; reinstall espeakng-loader")
        self.library.espeak_SetSynthCallback(self._receive)
        self.library.espeak_ng_SetRandSeed(_SEED)

    def close(self) -> None:
        """Unloads the library: terminating it alone leaves state behind."""
        self.library.espeak_Terminate()
        _ctypes.dlclose(self.library._handle)

    def set_voice(self, voice: str) -> None:
        """Selects a voice.

        Raises:
            TextError: espeak-ng has no such voice.
        """
        if voice != self.voice:
            self.voice = ""
            if not voice or self.library.espeak_SetVoiceByName(voice.encode()) != 0:
                raise TextError(
                    f"language {voice!r}: espeak-ng has no such voice; use the name of a language, such as en, fa or de"
                )
            self.voice = voice

    def _on_audio(self, samples: ctypes._Pointer[c_short], count: int, events: ctypes._Pointer[_Event]) -> int:
        """Collects samples and events of one block; the library calls it with C pointers."""
        if samples and count > 0:
            self.blocks.append(ctypes.string_at(samples, 2 * count))
        index = 0
        while events[index].type != _EVENT_LIST_END:
            event = events[index]
            name = b""
            if event.type == _EVENT_PHONEME:  # 8 bytes, zero-terminated only if shorter
                name = ctypes.string_at(ctypes.addressof(event.id), 8).split(b"\0")[0]
            self.events.append((event.type, event.sample, name.decode("utf-8", "replace")))
            index += 1
        return 0


_lock = threading.Lock()
_loaded: _Espeak | None = None


def _espeak(fresh: bool = False) -> _Espeak:
    """Returns the library, reloaded (4 ms) if its state must be `fresh`. The caller holds the lock."""
    global _loaded
    if fresh and _loaded is not None:
        _loaded.close()
        _loaded = None
    if _loaded is None:
        _loaded = _Espeak()
    return _loaded


def phone_words(text: str, voice: str) -> list[list[str]]:
    """Returns the phones of a text without punctuation: IPA phones with stress marks for each word.

    Diphthongs, affricates and long vowels are one phone (`oʊ`, `tʃ`, `iː`). Language switches that espeak-ng marks,
    such as `(en)`, are left out.

    Raises:
        TextError: espeak-ng has no such voice.
    """
    with _lock:
        espeak = _espeak()
        espeak.set_voice(voice)
        rest = c_char_p(text.encode())
        clauses = []
        while rest.value:  # one clause per call
            clauses.append(espeak.library.espeak_TextToPhonemes(ctypes.byref(rest), _UTF8, _PHONEME_MODE).decode())
    words = (
        [phone for phone in word.split(_SEPARATOR) if phone and not phone.startswith("(")]
        for clause in clauses
        for word in clause.split()
    )
    return [word for word in words if word]


def speak(text: str, voice: str) -> tuple[np.ndarray, int, list[tuple[str, float, float]]]:
    """Synthesizes a text.

    Args:
        text: Any text.
        voice: espeak-ng voice, optionally with a variant (`fa+f2`).

    Returns:
        Samples (N,) float32, their rate in Hz, and (phone, start, end) in seconds for every phone; pauses are gaps.
        Equal arguments give equal results.

    Raises:
        TextError: espeak-ng has no such voice, or fails.
    """
    with _lock:
        espeak = _espeak(fresh=True)  # the length of an utterance depends on previous ones
        espeak.set_voice(voice)
        data = text.encode() + b"\0"
        status = espeak.library.espeak_Synth(data, len(data), 0, 0, 0, _UTF8, None, None)
        samples = np.frombuffer(b"".join(espeak.blocks), dtype="<i2").astype(np.float32) / 32768.0
        events, rate = list(espeak.events), espeak.sample_rate
        espeak.blocks.clear()
        espeak.events.clear()
    if status != 0 or not len(samples):
        raise TextError(
            f"espeak-ng cannot synthesize {text!r} (voice {voice}, status {status}); check the text and the voice"
        )
    return samples, rate, _timings(events, rate)


def _timings(events: list[tuple[int, int, str]], rate: int) -> list[tuple[str, float, float]]:
    """Returns the phones with their times: each lasts until the next phone, pause or end of clause."""
    marks = [(sample, name) for kind, sample, name in events if kind in (_EVENT_PHONEME, _EVENT_END)]
    return [(name, start / rate, end / rate) for (start, name), (end, _) in pairwise(marks) if name]
