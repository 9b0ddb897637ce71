"""What teachers say is what their networks say, in one piece and without a mask."""

import numpy as np
import torch

from deltarnn.kws.features import teacher as module
from deltarnn.kws.features.teacher import Teacher, mean_posteriors
from deltarnn.kws.network.decision import clip_scores
from deltarnn.kws.network.model import Architecture, KeywordModel


def teacher() -> Teacher:
    torch.manual_seed(0)
    return Teacher(KeywordModel(Architecture(5, 3, hidden_size=8), fc_dropout=0.5), None, "")


def test_clips_are_scored_as_the_loss_pools_them(monkeypatch):
    monkeypatch.setattr(module, "_CLIPS_AT_ONCE", 4)
    one, clips = teacher(), torch.randn(10, 20, 5)
    expected = clip_scores(one.model.eval()(clips.transpose(0, 1).contiguous())[0])
    one.model.train()
    torch.testing.assert_close(torch.from_numpy(one.of_clips(clips.numpy())), expected.detach(), atol=1e-5, rtol=1e-5)


def test_frames_are_heard_without_a_break(monkeypatch):
    monkeypatch.setattr(module, "_FRAMES_AT_ONCE", 7)
    one, recordings = teacher(), torch.randn(30, 4, 5).half()
    expected = one.model.eval()(recordings.float())[0]
    actual = one.of_frames(recordings)
    assert actual.dtype == np.float16
    torch.testing.assert_close(torch.from_numpy(actual).float(), expected.detach(), atol=1e-3, rtol=1e-3)


def test_several_teachers_are_the_mean_of_their_posteriors():
    each = np.random.default_rng(0).standard_normal((3, 6, 4)).astype(np.float32)
    expected = np.mean([np.exp(one) / np.exp(one).sum(-1, keepdims=True) for one in each], axis=0)
    np.testing.assert_allclose(mean_posteriors(list(each)).exp(), expected, rtol=1e-5)
