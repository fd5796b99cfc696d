"""espeak-ng in this process, through ctypes: text to phones, and text to speech with the time of every phone.

The library and its data come with the package `espeakng-loader`. It keeps global state, so every call holds one lock.
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
"""Of espeak-ng's random numbers (breath, flutter), which it would seed with the time of day."""


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
    """The library, loaded and initialised; at most one at a time in a process."""

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
        self._receive = _Callback(self._on_audio)  # kept here: the library holds only its address
        flags = _PHONEME_EVENTS | _PHONEMES_AS_IPA | _DONT_EXIT
        self.sample_rate = self.library.espeak_Initialize(_SYNCHRONOUS, 0, data.encode(), flags)
        if self.sample_rate <= 0:
            raise TextError(f"{data}: espeak-ng finds no usable data here; reinstall espeakng-loader")
        self.library.espeak_SetSynthCallback(self._receive)
        self.library.espeak_ng_SetRandSeed(_SEED)

    def close(self) -> None:
        """Unload the library, and with it all the state that its own way of ending leaves behind."""
        self.library.espeak_Terminate()
        _ctypes.dlclose(self.library._handle)

    def use(self, voice: str) -> None:
        if voice != self.voice:
            self.voice = ""
            if not voice or self.library.espeak_SetVoiceByName(voice.encode()) != 0:
                raise TextError(
                    f"language {voice!r}: espeak-ng has no such voice; use the name of a language, such as en, fa or de"
                )
            self.voice = voice

    def _on_audio(self, samples, count, events) -> int:
        if samples and count > 0:
            self.blocks.append(ctypes.string_at(samples, 2 * count))
        index = 0
        while events[index].type != _EVENT_LIST_END:
            event = events[index]
            name = b""
            if event.type == _EVENT_PHONEME:  # up to 8 bytes, and at 8 there is no room for the closing zero
                name = ctypes.string_at(ctypes.addressof(event.id), 8).split(b"\0")[0]
            self.events.append((event.type, event.sample, name.decode("utf-8", "replace")))
            index += 1
        return 0


_lock = threading.Lock()
_loaded: _Espeak | None = None


def _espeak(fresh: bool = False) -> _Espeak:
    """The loaded library; newly loaded (4 ms) if it must not remember anything. The caller holds the lock."""
    global _loaded
    if fresh and _loaded is not None:
        _loaded.close()
        _loaded = None
    if _loaded is None:
        _loaded = _Espeak()
    return _loaded


def phone_words(text: str, voice: str) -> list[list[str]]:
    """Phones of a text without punctuation: a list of words, each a list of IPA phones with their stress marks.

    Diphthongs, affricates and length stay one phone (`oʊ`, `tʃ`, `iː`). The marks that espeak-ng sets where a word
    is spoken as another language's (`(en)`) are left out.

    Raises:
        TextError: espeak-ng has no such voice.
    """
    with _lock:
        espeak = _espeak()
        espeak.use(voice)
        rest = c_char_p(text.encode())
        clauses = []
        while rest.value:  # one clause a call
            clauses.append(espeak.library.espeak_TextToPhonemes(ctypes.byref(rest), _UTF8, _PHONEME_MODE).decode())
    words = (
        [phone for phone in word.split(_SEPARATOR) if phone and not phone.startswith("(")]
        for clause in clauses
        for word in clause.split()
    )
    return [word for word in words if word]


def speak(text: str, voice: str) -> tuple[np.ndarray, int, list[tuple[str, float, float]]]:
    """Speak a text.

    Args:
        text: What to say.
        voice: espeak-ng voice, with a variant if wanted (`fa+f2`).

    Returns:
        Samples (N,) float32, their rate in Hz, and (phone, start, end) in seconds for every phone; pauses are gaps.
        Equal arguments give equal results.

    Raises:
        TextError: espeak-ng has no such voice, or gives no sound.
    """
    with _lock:
        espeak = _espeak(fresh=True)  # the length of an utterance depends on those before it
        espeak.use(voice)
        data = text.encode() + b"\0"
        status = espeak.library.espeak_Synth(data, len(data), 0, 0, 0, _UTF8, None, None)
        samples = np.frombuffer(b"".join(espeak.blocks), dtype="<i2").astype(np.float32) / 32768.0
        events, rate = list(espeak.events), espeak.sample_rate
        espeak.blocks.clear()
        espeak.events.clear()
    if status != 0 or not len(samples):
        raise TextError(f"espeak-ng gives no sound for {text!r} (voice {voice}, status {status})")
    return samples, rate, _timings(events, rate)


def _timings(events: list[tuple[int, int, str]], rate: int) -> list[tuple[str, float, float]]:
    """A phone lasts until the next phone, pause or end of clause."""
    marks = [(sample, name) for kind, sample, name in events if kind in (_EVENT_PHONEME, _EVENT_END)]
    return [(name, start / rate, end / rate) for (start, name), (end, _) in pairwise(marks) if name]
