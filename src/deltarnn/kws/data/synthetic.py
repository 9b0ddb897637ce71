"""A data set that needs no download: keywords spoken by espeak-ng in many voices, laid out like Speech Commands.

Each voice is a variant of the synthesiser (its timbre) in an English accent, with a pitch and a speed of its own.
Variants are split between training, validation and test, so that test voices are never heard in training; rooms,
microphones, gains and noises are drawn for every clip. Everything follows from the seed, whatever the number of
workers.
"""

import hashlib
import multiprocessing
import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from deltarnn.files import read_json, sentence, write_json, write_text
from deltarnn.kws.data.acoustics import NOISE_KINDS, Signal, background, in_room, tilted
from deltarnn.kws.data.audio import Audio, resample, to_int16, write_wav
from deltarnn.kws.data.corpus import GROUPS, NOISE_FOLDER, SILENCE, TEST_FOLDER, TRAIN_FOLDER, UNKNOWN
from deltarnn.kws.data.espeak import Espeak
from deltarnn.kws.data.words import OTHER_WORDS, listed
from deltarnn.kws.draw import rng_of
from deltarnn.kws.workers import end_quietly, quiet_start

SAMPLE_RATE = 16000
NOISE_SECONDS = 30
ACCENTS = ("en-us", "en-us-nyc", "en", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-029")
VARIANTS = listed(
    "Alex Alicia Andrea Andy Annie Denis Diogo Gene Henrique Hugo Jacky Lee Marco Mario Michael Mike Nguyen Reed "
    "RicishayMax Storm Tweaky adam anika antonio aunty belinda benjamin boris caleb david ed edward f1 f2 f3 f4 f5 "
    "grandma grandpa gustave ian iven iven3 iven4 john kaukovalta klatt klatt2 klatt4 linda m1 m2 m3 m4 m5 m6 m7 m8 "
    "marcelo max michel miguel norbert pablo paul pedro quincy rob robert sandro shelby steph steph3 travis victor "
    "zac"
)


@dataclass(frozen=True)
class GroupPlan:
    """Size of one group: its share of the variants, its speakers, how often each says a keyword, and another word."""

    share: float
    speakers: int
    keyword_takes: int
    other_takes: float


PLANS = {
    "train": GroupPlan(share=0.6, speakers=90, keyword_takes=3, other_takes=0.35),
    "validation": GroupPlan(share=0.2, speakers=26, keyword_takes=2, other_takes=0.5),
    "test": GroupPlan(share=0.2, speakers=32, keyword_takes=2, other_takes=0.12),
}


@dataclass(frozen=True)
class Speaker:
    """One voice: of a group, with the words it says, (word, take number) each."""

    group: str
    code: str
    voice: str
    pitch: int
    pitch_range: int
    rate: int
    words: tuple[tuple[str, int], ...]

    def file_name(self, take: int) -> str:
        """The clip's file name, as in Speech Commands."""
        return f"{self.code}_nohash_{take}.wav"


def make_corpus(folder: Path, keywords: tuple[str, ...], seed: int, scale: float, workers: int) -> None:
    """Synthesise the data set under `folder`, or what of it is missing; does nothing where it is complete.

    ValueError if the folder holds a corpus that was not synthesised: it is never overwritten.
    """
    settings = {"keywords": list(keywords), "seed": seed, "scale": scale}
    marker = folder / "synthetic.json"
    state = read_json(marker)
    if state == {**settings, "complete": True}:
        print(f"{folder} is complete")
        return
    if state is None and any((folder / name).exists() for name in (TRAIN_FOLDER, TEST_FOLDER)):
        raise ValueError(f"--data_dir {folder}: holds another data set; name an empty folder for synthetic speech")
    if state is not None and state != {**settings, "complete": False}:
        for name in (TRAIN_FOLDER, TEST_FOLDER):
            shutil.rmtree(folder / name, ignore_errors=True)
    write_json(marker, {**settings, "complete": False})
    speakers = [speaker for group in GROUPS for speaker in cast_speakers(group, keywords, seed, scale)]
    jobs = [(folder, keywords, speaker, seed) for speaker in speakers]
    run_in_fresh_processes(_record, jobs, workers, "speaking")
    _write_noises(folder, seed, scale)
    listed = [f"{w}/{s.file_name(t)}" for s in speakers if s.group == "validation" for w, t in s.words]
    write_text(folder / TRAIN_FOLDER / "validation_list.txt", "\n".join(sorted(listed)) + "\n")
    write_text(folder / TRAIN_FOLDER / "testing_list.txt", "")  # the test clips lie in the test-set folder
    write_json(marker, {**settings, "complete": True})
    print(f"synthesised {sum(len(s.words) for s in speakers)} clips of {len(speakers)} voices in {folder}")


def make_words(folder: Path, words: Iterable[str], count: int, seed: int, workers: int) -> list[tuple[str, Path]]:
    """`count` clips of words in training voices, as folder/WORD/CODE_nohash_0.wav; (word, path) of each."""
    words = sorted(words)
    rng = rng_of(seed, "further unknown words")
    voices = cast_speakers("train", (), seed, 4.0)
    said = [(words[i % len(words)], voices[int(rng.integers(len(voices)))]) for i in range(count)]
    takes: dict[str, list[tuple[str, int]]] = {}
    for number, (word, speaker) in enumerate(said):
        takes.setdefault(speaker.code, []).append((word, number))
    cast = {speaker.code: speaker for speaker in voices}
    jobs = [
        (folder, replace(cast[code], words=tuple(sorted(said_by))), seed) for code, said_by in sorted(takes.items())
    ]
    jobs = [job for job in jobs if not all(path.is_file() for path in _flat_paths(folder, job[1]))]
    run_in_fresh_processes(_record_flat, jobs, workers, f"words in {folder.name}")
    return [(word, folder / word / speaker.file_name(number)) for number, (word, speaker) in enumerate(said)]


def cast_speakers(group: str, keywords: tuple[str, ...], seed: int, scale: float) -> list[Speaker]:
    """The speakers of a group: variants that no other group has, accents, and what each says."""
    order = rng_of(seed, "variants").permutation(len(VARIANTS))
    first = sum(PLANS[g].share for g in GROUPS[: GROUPS.index(group)])
    own = order[round(first * len(order)) : round((first + PLANS[group].share) * len(order))]
    plan = PLANS[group]
    others = sorted(set(OTHER_WORDS) - set(keywords))
    speakers = []
    for number in range(max(2, round(plan.speakers * scale))):
        rng = rng_of(seed, "speaker", group, str(number))
        voice = f"{ACCENTS[rng.integers(len(ACCENTS))]}+{VARIANTS[own[number % len(own)]]}"
        words = [(word, take) for word in keywords for take in range(plan.keyword_takes)]
        words += [(word, 0) for word in others if rng.random() < plan.other_takes]
        code = hashlib.blake2b(f"{seed}/{group}/{number}/{voice}".encode(), digest_size=4).hexdigest()
        pitch, pitch_range, rate = (int(rng.integers(*span)) for span in ((25, 76), (20, 81), (120, 211)))
        speakers.append(Speaker(group, code, voice, pitch, pitch_range, rate, tuple(words)))
    return speakers


def speak(espeak: Espeak, speaker: Speaker, word: str, take: int, seed: int) -> Audio:
    """One clip at 16 kHz: the word with this take's pitch and speed, somewhere in up to a second of room and noise."""
    rng = rng_of(seed, "clip", speaker.code, word, str(take))
    said = espeak.say(
        word,
        speaker.voice,
        rate=int(np.clip(speaker.rate + rng.integers(-20, 21), 80, 260)),
        pitch=int(np.clip(speaker.pitch + rng.integers(-10, 11), 0, 99)),
        pitch_range=int(np.clip(speaker.pitch_range + rng.integers(-15, 16), 0, 99)),
    )
    speech = _trimmed(resample(said, espeak.sample_rate, SAMPLE_RATE).astype(np.float64))[:SAMPLE_RATE]
    length = SAMPLE_RATE if rng.random() < 0.9 else int(rng.integers(max(len(speech), 11000), SAMPLE_RATE + 1))
    clip = np.zeros(length)
    start = int(rng.integers(0, length - len(speech) + 1))
    clip[start : start + len(speech)] = speech
    clip = tilted(clip, rng)
    if rng.random() < 0.6:
        clip = in_room(clip, rng)
    level = np.sqrt((clip**2).sum() / len(speech))
    kind = NOISE_KINDS[rng.integers(len(NOISE_KINDS))] if rng.random() < 0.5 else "pink"
    clip += level * 10 ** (-rng.uniform(15, 45) / 20) * background(kind, length, rng)
    return to_int16(clip * 32767 * 10 ** (-rng.uniform(0.5, 20) / 20) / np.abs(clip).max())


def run_in_fresh_processes(function: Any, jobs: list[Any], workers: int, what: str) -> None:
    """function(*job) for every job, each in a process of its own, so that none depends on what ran before it.

    OSError says what went wrong in one of them.
    """
    forks = "forkserver" in multiprocessing.get_all_start_methods()
    context: Any = multiprocessing.get_context("forkserver" if forks else "spawn")
    if forks:
        context.set_forkserver_preload([__name__, "soxr"])
    told, sink = context.Pipe(duplex=False)
    running: list[Any] = []
    waiting = list(reversed(jobs))
    with tqdm(total=len(jobs), desc=what, unit="voice", disable=None) as bar:
        try:
            while waiting or running:
                while waiting and len(running) < workers:
                    process = context.Process(target=_run_job, args=(sink, function, waiting.pop()), daemon=True)
                    with quiet_start():
                        process.start()
                    running.append(process)
                wait([process.sentinel for process in running])
                for process in [p for p in running if p.exitcode is not None]:
                    if process.exitcode:
                        ended = f"{what}: a worker failed (exit code {process.exitcode})"
                        raise OSError(told.recv() if told.poll() else ended)
                    running.remove(process)
                    bar.update()
        finally:
            for process in running:
                process.terminate()


def _run_job(sink: Any, function: Any, job: tuple[Any, ...]) -> None:
    """In a process of its own: tell an error by its sentence, as the command does."""
    end_quietly()
    try:
        function(*job)
    except (OSError, ValueError) as error:
        sink.send(sentence(error))
        sys.exit(1)


def _record(folder: Path, keywords: tuple[str, ...], speaker: Speaker, seed: int) -> None:
    """All clips of one speaker, where Speech Commands would have them."""
    paths = []
    for word, take in speaker.words:
        if speaker.group != "test":
            paths.append(folder / TRAIN_FOLDER / word / speaker.file_name(take))
        elif word in keywords:
            paths.append(folder / TEST_FOLDER / word / speaker.file_name(take))
        else:
            paths.append(folder / TEST_FOLDER / UNKNOWN / f"{word}_{speaker.file_name(take)}")
    _record_all(speaker, paths, seed)


def _record_flat(folder: Path, speaker: Speaker, seed: int) -> None:
    _record_all(speaker, _flat_paths(folder, speaker), seed)


def _flat_paths(folder: Path, speaker: Speaker) -> list[Path]:
    return [folder / word / speaker.file_name(take) for word, take in speaker.words]


def _record_all(speaker: Speaker, paths: list[Path], seed: int) -> None:
    if all(path.is_file() for path in paths):
        return
    espeak = Espeak(seed=int(speaker.code[:7], 16))
    for path, (word, take) in zip(paths, speaker.words, strict=True):
        write_wav(path, speak(espeak, speaker, word, take, seed), SAMPLE_RATE)


def _write_noises(folder: Path, seed: int, scale: float) -> None:
    """Background noises, and the test set's silence: the same kinds of noise, drawn apart."""
    for kind in NOISE_KINDS:
        noise = background(kind, NOISE_SECONDS * SAMPLE_RATE, rng_of(seed, "noise", kind))
        write_wav(folder / TRAIN_FOLDER / NOISE_FOLDER / f"{kind}.wav", to_int16(2000 * noise), SAMPLE_RATE)
    for number in range(max(2, round(PLANS["test"].speakers * PLANS["test"].keyword_takes * scale))):
        rng = rng_of(seed, "test silence", str(number))
        noise = background(NOISE_KINDS[number % len(NOISE_KINDS)], SAMPLE_RATE, rng)
        silence = to_int16(2000 * 10 ** (-rng.uniform(0, 10) / 20) * noise)
        write_wav(folder / TEST_FOLDER / SILENCE / f"{number}.wav", silence, SAMPLE_RATE)


def _trimmed(signal: Signal, margin: int = 320) -> Signal:
    """The part of a signal above a hundredth of its peak, and 20 ms on either side."""
    loud = np.flatnonzero(np.abs(signal) > 0.01 * np.abs(signal).max())
    return signal[max(0, loud[0] - margin) : loud[-1] + margin]
