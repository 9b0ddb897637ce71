"""The folders of Speech Commands: which clips there are, of which words, speakers and groups."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from deltarnn.kws.data.audio import SUFFIXES, speaker_of

TRAIN_FOLDER = "speech_commands_v0.02"
TEST_FOLDER = "speech_commands_test_set_v0.02"
NOISE_FOLDER = "_background_noise_"
SILENCE, UNKNOWN = "_silence_", "_unknown_"
GROUPS = ("train", "validation", "test")


@dataclass(frozen=True)
class SourceClip:
    """One file of the corpus. `word` is its folder's name; `speaker` None where the file's name has no code."""

    word: str
    path: Path

    @property
    def speaker(self) -> str | None:
        return speaker_of(self.path)


@dataclass(frozen=True)
class Corpus:
    """Clips of the corpus by group, before any selection, and its background noises."""

    clips: dict[str, list[SourceClip]]
    noises: list[Path]
    duplicates: list[Path]


def find_corpus(data_dir: str | Path, keywords: tuple[str, ...]) -> Corpus:
    """The corpus under `data_dir`. ValueError says what is missing and what to type instead.

    The validation list decides between train and validation, the testing list takes clips out of both, and the clips
    of the test-set folder are the test group. One clip in several file types counts once.
    """
    root, test_root = Path(data_dir) / TRAIN_FOLDER, Path(data_dir) / TEST_FOLDER
    for folder in (root, test_root):
        if not folder.is_dir():
            raise ValueError(
                f"no folder {folder}: --data_dir must name the folder that holds {TRAIN_FOLDER} and {TEST_FOLDER}. "
                f"Add --download to fetch them there (2.5 GB), or use --dataset synth, which needs no download"
            )
    words = _word_folders(root)
    tested = _word_folders(test_root)
    _check_keywords(keywords, words, tested, data_dir)
    listed = {name: _read_list(root / f"{name}_list.txt", required=name == "validation") for name in
              ("validation", "testing")}  # fmt: skip
    clips: dict[str, list[SourceClip]] = {group: [] for group in GROUPS}
    duplicates: list[Path] = []
    for word in words:
        for path in _audio_files(root / word, duplicates):
            name = f"{word}/{path.stem}"
            if name not in listed["testing"]:
                clips["validation" if name in listed["validation"] else "train"].append(SourceClip(word, path))
    for word in (*keywords, UNKNOWN, SILENCE):
        if word in tested:
            clips["test"].extend(SourceClip(word, path) for path in _audio_files(test_root / word, duplicates))
    noises = _audio_files(root / NOISE_FOLDER, duplicates) if (root / NOISE_FOLDER).is_dir() else []
    if not noises:
        raise ValueError(f"no background noises in {root / NOISE_FOLDER}: silence cannot be made; restore that folder")
    return Corpus(clips, noises, duplicates)


def by_word(clips: list[SourceClip]) -> dict[str, list[SourceClip]]:
    """The clips of each word."""
    words = defaultdict(list)
    for clip in clips:
        words[clip.word].append(clip)
    return dict(words)


def _word_folders(root: Path) -> list[str]:
    return sorted(p.name for p in root.iterdir() if p.is_dir() and p.name != NOISE_FOLDER)


def _check_keywords(keywords: tuple[str, ...], words: list[str], tested: list[str], data_dir: str | Path) -> None:
    here = [word for word in keywords if word in words and word in tested]
    missing = [word for word in keywords if word not in here]
    if not missing:
        return
    lacks = "; ".join(
        f"{folder} has no folder for {', '.join(absent)}"
        for folder, names in ((TRAIN_FOLDER, words), (TEST_FOLDER, tested))
        if (absent := [word for word in keywords if word not in names])
    )
    both = here or [word for word in words if word in tested]
    remedy = f"To use the words that are there, type --keywords {','.join(both)}" if both else "Check --data_dir"
    raise ValueError(f"in {data_dir}, {lacks}. {remedy}")


def _read_list(path: Path, required: bool) -> frozenset[str]:
    """The clips "word/stem" of a list file; their file type does not matter."""
    if not path.is_file():
        if required:
            raise ValueError(f"no file {path}: it decides which clips validate; restore it from the original archive")
        return frozenset()
    lines = path.read_text().split()
    return frozenset(f"{Path(line).parent.name}/{Path(line).stem}" for line in lines)


def _audio_files(folder: Path, duplicates: list[Path]) -> list[Path]:
    """Audio files of a folder, sorted; of one clip in several file types the first of SUFFIXES."""
    chosen: dict[str, Path] = {}
    rank = {suffix: i for i, suffix in enumerate(SUFFIXES)}
    files = [p for p in folder.iterdir() if p.suffix.lower() in rank and not p.name.startswith(".")]
    for path in sorted(files, key=lambda p: (rank[p.suffix.lower()], p.name)):
        if path.stem in chosen:
            duplicates.append(path)
        else:
            chosen[path.stem] = path
    return sorted(chosen.values())
