"""Words spoken by espeak-ng, in this process, through the shared library that espeakng-loader brings."""

import ctypes

import numpy as np
from numpy.typing import NDArray

from deltarnn.kws.data.audio import Audio

_SYNCHRONOUS, _UTF8 = 2, 1
_RATE, _PITCH, _RANGE = 1, 3, 4
_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


class Espeak:
    """The synthesiser. The library keeps one state per process, and what was said before colours what is said next:
    the same samples come only from the same sequence of calls in a fresh process, with the same `seed` (of breath).

    Raises
    ------
    OSError
        If the library or its data do not load.
    """

    def __init__(self, seed: int = 0) -> None:
        import espeakng_loader

        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        path = espeakng_loader.get_data_path().encode()
        self.sample_rate = int(self._library.espeak_Initialize(_SYNCHRONOUS, 0, path, 0))
        if self.sample_rate <= 0:
            raise OSError(f"espeak-ng does not start with its data in {path.decode()}; reinstall espeakng-loader")
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(seed))
        self._pieces: list[Audio] = []
        self._callback = _Callback(self._take)  # kept here: the library holds only its address
        self._library.espeak_SetSynthCallback(self._callback)

    def say(self, text: str, voice: str, rate: int = 175, pitch: int = 50, pitch_range: int = 50) -> Audio:
        """Samples (N,) int16 at `sample_rate`. voice: "en-us+f3", language and variant. rate: words per minute.
        pitch, pitch_range: 0 to 99. ValueError if there is no such voice, or it says nothing."""
        if self._library.espeak_SetVoiceByName(voice.encode()):
            raise ValueError(f"espeak-ng has no voice {voice!r}")
        for parameter, value in ((_RATE, rate), (_PITCH, pitch), (_RANGE, pitch_range)):
            self._library.espeak_SetParameter(parameter, int(value), 0)
        self._pieces.clear()
        content = text.encode()
        self._library.espeak_Synth(content, ctypes.c_size_t(len(content) + 1), 0, 1, 0, _UTF8, None, None)
        self._library.espeak_Synchronize()
        if not any(piece.any() for piece in self._pieces):
            raise ValueError(f"espeak-ng says nothing to {text!r}")
        return np.concatenate(self._pieces)

    def _take(self, samples: "ctypes._Pointer[ctypes.c_short]", count: int, events: int) -> int:
        if samples and count > 0:
            piece: NDArray[np.int16] = np.ctypeslib.as_array(samples, (count,)).copy()
            self._pieces.append(piece)
        return 0
