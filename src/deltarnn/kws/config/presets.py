"""Named recipes: values for several flags at once, chosen with --preset; flags given beside it win."""

from typing import Any

COMMON: dict[str, Any] = {
    "cfg_feat": "feat_speech",
    "lr": 8e-3,
    "lr_decay": "cosine",
    "lr_end": 1e-4,
    "grad_clip_val": 5.0,
    "average": 0.998,
    "threshold_warmup": 0.3,
    "teacher": "start",
    "thx": 0.3,
    "thh": 0.2,
    "aug_speed": 0.13,
    "aug_time_mask": 2,
    "aug_freq_mask": 1,
}

CLIPS: dict[str, Any] = {
    **COMMON,
    "unknown_ratio": 2.0,
    "synth_unknown": 2400,
    "synth_keywords": 1000,
    "label_smoothing": 0.05,
    "epochs_pretrain": 40,
    "epochs_retrain": 40,
    "beta": 0.01,
    "aug_noise": 0.7,
    "aug_snr_low": 5.0,
    "aug_snr_high": 35.0,
    "aug_gain": 8.0,
    "aug_shift": 0.1,
    "aug_splice": 1000,
}
"""docs/keyword_spotting.md says what each of these is worth."""

STREAM: dict[str, Any] = {
    **COMMON,
    "unknown_ratio": 8.0,
    "synth_unknown": 2400,
    "synth_keywords": 1000,
    "stream_minutes": 96.0,
    "stream_chunk": 62,
    "target": "word",
    "focus": 1.0,
    "tell_silence": 0.25,
    "label_smoothing": 0.03,
    "temperature": 1.0,
    "epochs_pretrain": 80,
    "epochs_retrain": 80,
    "beta": 0.005,
    "aug_noise": 0.75,
    "aug_snr_low": 2.0,
    "aug_snr_high": 32.0,
    "aug_gain": 15.0,
    "smooth_window_size": 10,
    "confidence_window_size": 25,
    "fire_threshold": 0.3,
}
"""For streams without end: docs/streams.md says what each of these is for."""

PRESETS: dict[str, dict[str, Any]] = {
    "none": {},
    "default": CLIPS,
    "stream": STREAM,
    "demo": {
        **CLIPS,
        "synth_unknown": 0,
        "synth_keywords": 0,
        "batch_size": 32,
        "epochs_pretrain": 30,
        "epochs_retrain": 24,
        "aug_noise": 0.5,
        "aug_snr_low": 10.0,
        "aug_splice": 0,
        "aug_versions": 4,
        "carry_state": 0.5,
    },
    "large": {
        **CLIPS,
        "rnn_layers": 2,
        "rnn_size": 160,
        "rnn_dropout": 0.2,
        "fc_dropout": 0.2,
        "aug_time_mask": 8,
        "aug_freq_mask": 2,
        "lr": 6e-3,
        "batch_size": 128,
        "epochs_pretrain": 25,
        "thx": [0.25, 0.1],
        "thh": 0.1,
        "beta": 0.005,
        "teacher": "all",
        "teacher_weight": 0.8,
    },
}
