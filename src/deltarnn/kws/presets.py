"""Named recipes: values for several flags at once, chosen with --preset; flags given beside it win."""

from typing import Any

RECIPE: dict[str, Any] = {
    "cfg_feat": "feat_speech",
    "unknown_ratio": 2.0,
    "synth_unknown": 2400,
    "synth_keywords": 1000,
    "lr": 8e-3,
    "lr_decay": "cosine",
    "lr_end": 1e-4,
    "grad_clip_val": 5.0,
    "label_smoothing": 0.05,
    "average": 0.998,
    "epochs_pretrain": 40,
    "epochs_retrain": 30,
    "threshold_warmup": 0.3,
    "thx": 0.35,
    "thh": 0.22,
    "aug_noise": 0.7,
    "aug_snr_low": 5.0,
    "aug_snr_high": 35.0,
    "aug_gain": 8.0,
    "aug_shift": 0.1,
    "aug_speed": 0.13,
    "aug_splice": 1000,
    "aug_time_mask": 2,
    "aug_freq_mask": 1,
}
"""docs/keyword_spotting.md says what each of these is worth."""

PRESETS: dict[str, dict[str, Any]] = {
    "none": {},
    "default": RECIPE,
    "demo": {
        **RECIPE,
        "synth_unknown": 0,
        "synth_keywords": 0,
        "batch_size": 32,
        "epochs_pretrain": 30,
        "epochs_retrain": 24,
        "aug_noise": 0.5,
        "aug_snr_low": 10.0,
        "aug_splice": 0,
        "aug_versions": 4,
    },
    "large": {
        **RECIPE,
        "rnn_layers": 2,
        "rnn_size": 160,
        "rnn_dropout": 0.2,
        "fc_dropout": 0.2,
        "aug_time_mask": 8,
        "aug_freq_mask": 2,
        "lr": 6e-3,
        "batch_size": 128,
        "epochs_pretrain": 12,
        "epochs_retrain": 20,
        "thx": 0.3,
        "thh": 0.18,
    },
}
