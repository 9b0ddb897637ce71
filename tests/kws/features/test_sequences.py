"""Targets of frames by hand; recordings come in chunks, one after another."""

import torch

from deltarnn.kws.data.compose import Spoken
from deltarnn.kws.features.sequences import Sequences, Version, frame_targets


def test_targets_stand_where_words_end():
    # 10 ms frames: frame t is there at sample 160·t + 160.
    words = [Spoken(3, 1600, 8000), Spoken(1, 16000, 20000)]
    targets = frame_targets(words, 200, 160, 160, 16000)
    # The keyword: ignored from 0.1 s until 0.1 s before its end at 0.5 s, then its own until 0.75 s.
    assert targets[:9].tolist() == [0] * 9
    assert targets[9:39].tolist() == [-1] * 30
    assert targets[39:74].tolist() == [3] * 35
    assert targets[74:99].tolist() == [0] * 25
    # The other word: ignored in its first 0.1 s, then unknown until 0.25 s after its end at 1.25 s.
    assert targets[99:109].tolist() == [-1] * 10
    assert targets[109:149].tolist() == [1] * 40
    assert not targets[149:].any()


def test_a_keyword_that_is_followed_at_once_keeps_its_frames():
    targets = frame_targets([Spoken(2, 0, 3200), Spoken(1, 4000, 9600)], 100, 160, 160, 16000)
    assert (targets[20:34] == 2).all()
    assert (targets[35:70] == 1).all()


def test_chunks_follow_one_another_and_masks_spare_the_versions():
    features = torch.arange(100.0)[:, None, None].expand(100, 2, 3).half().contiguous()
    targets = torch.arange(100)[:, None].expand(100, 2).to(torch.int8).contiguous()

    taught = 2 * features[..., :1]

    class First:
        def __call__(self, chunk: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
            return torch.cat([torch.full_like(chunk[:1], -1), chunk[1:]])

    sequences = Sequences([Version(features, targets, taught)], chunk=12, mask=First())
    generators = [torch.Generator().manual_seed(seed) for seed in (0, 1)]
    batches = list(sequences.batches(2, *generators))
    assert len(batches) == sequences.steps(2) == 7
    assert [batch.goes_on for batch in batches] == [False] + [True] * 6
    joined = torch.cat([batch.targets for batch in batches])[:, 0]
    assert (joined[1:] - joined[:-1] == 1).all()
    for batch in batches:
        assert (batch.features[0] == -1).all()
        assert torch.equal(batch.features[1:, 0, 0].long(), batch.targets[1:, 0])
        assert torch.equal(batch.taught[:, 1, 0].long(), 2 * batch.targets[:, 0])
    assert torch.equal(features[:, 0, 0], torch.arange(100.0).half())
