"""C99 text of a whole spotter beside its network: front end and decision rule, what they keep, and how to call them."""

import string
from collections.abc import Mapping, Sequence
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from deltarnn.fixed.band_passes import IntegerBandPasses
from deltarnn.fixed.feature_scale import LOG_TABLE
from deltarnn.fixed.log_bank import PASSES, IntegerLogFilterBank, SpectrumBank
from deltarnn.fixed.log_mel_bank import IntegerLogMelFilterBank, power_shift
from deltarnn.fixed.parameters import UnsupportedModelError
from deltarnn.fixed.spotter import IntegerSpotter
from deltarnn.hardware.c_data import integer_type
from deltarnn.hardware.c_source import array_text

Arrays = dict[str, tuple[str, NDArray[np.int64]]]
TYPE_BYTES = {
    "int8_t": 1, "uint8_t": 1, "int16_t": 2, "uint16_t": 2, "int32_t": 4, "uint32_t": 4, "uint64_t": 8,
}  # fmt: skip

NO_CALLS = """\
/* Loops stay loops: GCC makes calls of memset and memcpy of some of them, which a program without a C library lacks. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("no-tree-loop-distribute-patterns")
#endif"""

Fields = list[tuple[str, str, int]]
"""C type, name and length of what the state holds; 0 for no array."""


def state_fields(spotter: IntegerSpotter) -> Fields:
    """What a spotter keeps beside its network; all of it begins at zero."""
    front, rule, act = spotter.front_end, spotter.rule, integer_type(spotter.network.quantization.activation.bits)
    fields: Fields = [
        ("uint64_t", "frames", 0),
        ("int32_t", "scores", spotter.network.output_size),
        ("int32_t", "sums", spotter.keywords),
        *(("int32_t", name, 0) for name in ("filled", "skip", "oldest")),
        *(("int32_t", name, 0) for name in ("before", "candidate", "word", "age", "open", "quiet")),
    ]
    if isinstance(front, SpectrumBank):
        fields += [("int32_t", "spectrum", 2 * front.spectrum.points), ("int16_t", "samples", front.length)]
    elif isinstance(front, IntegerBandPasses):
        filters, sections = front.sections.coefficients.shape[:2]
        fields += [
            ("int32_t", "inputs", 2), ("int32_t", "outputs", 2 * filters * sections), ("uint32_t", "levels", filters),
        ]  # fmt: skip
    fields += [(_margin_type(spotter), "margins", rule.smoothing * spotter.keywords)]
    return [*fields, (act, "features", front.num_features)]


def state_bytes(spotter: IntegerSpotter, network: int) -> int:
    """sizeof NAME_state where 64-bit integers are aligned to 8 bytes, the network's part having `network` bytes."""
    end, widest = network, 1
    for kind, _, length in state_fields(spotter):
        size = TYPE_BYTES[kind]
        end, widest = -(-end // size) * size + size * max(length, 1), max(widest, size)
    return -(-end // widest) * widest


def header_macros(spotter: IntegerSpotter) -> dict[str, int]:
    """What a program needs to know of a spotter: name after NAME_, value."""
    rule, front = spotter.rule, spotter.front_end
    return {
        "SAMPLE_RATE": spotter.sample_rate,
        "LENGTH": front.length,
        "HOP": front.hop,
        "KEYWORDS": spotter.keywords,
        "SCORE_UNIT": rule.unit * rule.smoothing,
        "SCORE_OFFSET": rule.bound * rule.smoothing,
        "THRESHOLD": rule.threshold,
    }


def header_text(spotter: IntegerSpotter, name: str, labels: Sequence[str]) -> str:
    """The declarations of a spotter, for the end of the public header. labels: names of the classes, or none."""
    upper = name.upper()
    macros = "\n".join(f"#define {upper}_{macro} ({value})" for macro, value in header_macros(spotter).items())
    return f"""{macros}
{f"#define {upper}_WORDS {{{', '.join(map(quoted, labels))}}} /* names of the classes */" if labels else ""}

typedef struct {{
    int32_t word;  /* index of the class, as in the scores; -1: none */
    int32_t score; /* in 1/{upper}_SCORE_UNIT */
    uint64_t time; /* samples of the stream up to the end of the word */
    int32_t taken; /* samples of this call that were taken */
}} {name}_detection;

/* The next samples of the stream, any number of them, at {upper}_SAMPLE_RATE: they are taken until one detection is
 * decided, or all of them. Call again with those that were not taken until there are none: no detection is lost,
 * however many frames a call completes. NULL, or no samples: nothing happens, and all count as taken.
 * After a frame (`frames` has risen) the state shows its features, class scores, and per keyword the smoothed score,
 * (sums[k] - {upper}_SCORE_OFFSET) / {upper}_SCORE_UNIT. */
{name}_detection {name}_push({name}_state *state, const int16_t *samples, int32_t count);
"""


def quoted(text: str) -> str:
    """A string literal of C."""
    kept = set(string.ascii_letters + string.digits + " _-.")
    plain = "".join(chr(b) if chr(b) in kept else f"\\{b:03o}" for b in text.encode())
    return f'"{plain}"'


def data_arrays(spotter: IntegerSpotter) -> Arrays:
    """The constant arrays of front end and rule by name: C type and values."""
    front, arrays = spotter.front_end, Arrays()
    if isinstance(front, SpectrumBank):
        spectrum, points, radix = front.spectrum, front.spectrum.points, front.spectrum.first_radix
        arrays |= {
            "fe_window": ("int16_t", spectrum.window),
            "fe_order": ("uint8_t", spectrum.order[: points // radix] // radix),
            "fe_twiddles": ("int32_t", _pairs(*spectrum.twiddles)),
            "fe_twists": ("int32_t", _pairs(*spectrum.twists)),
        }
    if isinstance(front, IntegerLogFilterBank):
        arrays |= {
            "fe_corners": ("int16_t", np.array(front.corners)),
            "fe_slopes": ("uint32_t", np.array(front.steps)),
        }
    elif isinstance(front, IntegerLogMelFilterBank):
        bands = zip(front.bands, front.weights.T, strict=True)
        arrays |= {
            "fe_bands": ("int16_t", np.array(front.bands).ravel()),
            "fe_weights": ("uint16_t", np.concatenate([column[first:end] for (first, end), column in bands])),
        }
    elif isinstance(front, IntegerBandPasses):
        arrays["fe_coefficients"] = ("int32_t", front.sections.coefficients.ravel())
    if front.scale.logarithmic:
        arrays["fe_logarithms"] = ("uint16_t", LOG_TABLE)
    return arrays


def source_text(spotter: IntegerSpotter, name: str) -> str:
    """Front end, rule and NAME_push: the text that follows the network's."""
    front = spotter.front_end
    bank = "log_bank.c" if isinstance(front, SpectrumBank) else "band_passes.c"
    of_bank = _spectrum_bank(front) if isinstance(front, SpectrumBank) else _band_passes(front)
    macros = {**_names(name), **_common(spotter), **of_bank}
    parts = [
        NO_CALLS,
        "\n".join(f"#define {macro} {value}" for macro, value in macros.items()),
        f"typedef {_margin_type(spotter)} margin_t;",
        *(array_text(array, kind, values) for array, (kind, values) in data_arrays(spotter).items()),
        *(files("deltarnn.hardware").joinpath(file).read_text(encoding="utf-8")
          for file in ("feature_scale.c", bank, "spotter.c")),
    ]  # fmt: skip
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _names(name: str) -> dict[str, str]:
    parts = {"STATE": "state", "DETECTION": "detection", "PUSH": "push", "STEP": "step"}
    return {macro: f"{name}_{part}" for macro, part in parts.items()}


def _common(spotter: IntegerSpotter) -> Mapping[str, object]:
    """Macros of any front end, of the scale and of the rule."""
    front, rule, scale = spotter.front_end, spotter.rule, spotter.front_end.scale
    powers = isinstance(front, IntegerLogMelFilterBank)
    return {
        "FE_LENGTH": front.length,
        "FE_HOP": front.hop,
        "FE_FILTERS": front.num_features,
        "FE_LOGARITHMIC": int(scale.logarithmic),
        "FE_POWERS": int(powers),
        "FE_ADDED": f"UINT64_C({scale.added})" if powers else f"{scale.added}u",
        "FE_SLOPE": _int64(scale.gain),
        "FE_START": _int64(scale.offset),
        "FE_SCALE_SHIFT": scale.shift,
        "FE_LOW": f"({scale.low})",
        "FE_HIGH": scale.high,
        "RULE_CLASSES": spotter.network.output_size,
        "RULE_KEYWORDS": spotter.keywords,
        "RULE_OTHERS": rule.others,
        "RULE_UNIT": rule.unit,
        "RULE_FRACTION": rule.score_fraction_bits,
        "RULE_SMOOTHING": rule.smoothing,
        "RULE_BOUND": rule.bound,
        "RULE_HOLD": rule.hold,
        "RULE_REFRACTORY": rule.refractory,
        "RULE_THRESHOLD": f"({rule.threshold + rule.bound * rule.smoothing})",
    }


def _spectrum_bank(front: SpectrumBank) -> Mapping[str, object]:
    spectrum = front.spectrum
    if isinstance(front, IntegerLogFilterBank):
        projections = _pairs(*np.array(spectrum.projections(front.fraction_bits)).T)
        of_bank = {f"FE_PROJECTION_{i}": int(pair) for i, pair in enumerate(projections)}
        of_bank |= {f"FE_BIN_{bin}": front.corners[0] + (bin - front.corners[0]) % stride for bin, stride in PASSES}
    else:
        of_bank = {"FE_POWER_SHIFT": power_shift(spectrum)}
    return {
        "FE_POINTS": spectrum.points,
        "FE_FIRST": spectrum.first_radix,
        "FE_BLOCKS": spectrum.points // spectrum.first_radix,
        "FE_SHIFT": spectrum.shift,
        **of_bank,
    }


def _band_passes(front: object) -> Mapping[str, object]:
    if not isinstance(front, IntegerBandPasses):
        raise UnsupportedModelError(f"there is no C source for a {type(front).__name__}")
    mic = front.microphone
    macros: dict[str, object] = {
        "FE_SECTIONS": front.sections.coefficients.shape[1],
        "FE_LEVEL_SHIFT": front.level_shift,
        "FE_FRACTION": front.sections.fraction_bits,
        "FE_MICROPHONE": int(mic is not None),
    }
    if mic is not None:
        macros |= {"FE_MEAN": f"({mic.mean})", "FE_FULL_SCALE": mic.full_scale, "FE_GAIN": _int64(mic.gain)}
    return macros


def _margin_type(spotter: IntegerSpotter) -> str:
    return "uint16_t" if 2 * spotter.rule.bound < 1 << 16 else "uint32_t"


def _pairs(cos: NDArray[np.int64], sin: NDArray[np.int64]) -> NDArray[np.int64]:
    """sin << 16 | cos, as signed words of 32 bits."""
    return np.asarray((sin << 16) | (cos & 0xFFFF), dtype=np.int64)


def _int64(value: int) -> str:
    return f"INT64_C({value})" if value >= 0 else f"(-INT64_C({-value}))"
