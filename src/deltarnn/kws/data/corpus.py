"""The folders of Speech Commands: which clips there are, of which words, speakers and groups."""

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

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


@dataclass
class Corpus:
    """Clips of the corpus by group, before any selection, and its background noises.

    duplicates: clips that are there as another file type too. unusable: a sentence on each file or folder that cannot
    be taken. notes: sentences on what else the user should know.
    """

    clips: dict[str, list[SourceClip]] = field(default_factory=lambda: {group: [] for group in GROUPS})
    noises: list[Path] = field(default_factory=list)
    duplicates: list[Path] = field(default_factory=list)
    unusable: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def word_folders(self, root: Path) -> list[str]:
        """Names of the folders in `root` that hold words."""
        names = []
        for path in sorted(root.iterdir()):
            if path.is_symlink() and not path.exists():
                self.unusable.append(f"{path}: a link to nothing")
            elif path.is_dir() and path.name != NOISE_FOLDER and self._is_named(path):
                names.append(path.name)
        return names

    def audio_files(self, folder: Path) -> list[Path]:
        """Audio files of a folder, sorted; of one clip in several file types the first of SUFFIXES."""
        chosen: dict[str, Path] = {}
        rank = {suffix: i for i, suffix in enumerate(SUFFIXES)}
        files = [p for p in folder.iterdir() if p.suffix.lower() in rank and not p.name.startswith(".")]
        for path in sorted(files, key=lambda p: (rank[p.suffix.lower()], p.name)):
            if not path.is_file():
                what = "a link to nothing" if path.is_symlink() and not path.exists() else "no regular file"
                self.unusable.append(f"{path}: {what}")
            elif not self._is_named(path):
                continue
            elif path.stem in chosen:
                self.duplicates.append(path)
            else:
                chosen[path.stem] = path
        return sorted(chosen.values())

    def _is_named(self, path: Path) -> bool:
        """Whether a name can be written down."""
        try:
            path.name.encode()
        except UnicodeEncodeError:
            self.unusable.append(f"{path}: its name is not UTF-8")
            return False
        return True


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
                f"Add --download to fetch them there (2.5 GB), or use --dataset synth, which needs no download; "
                f"recordings of your own, one folder per word, take a name of their own, such as --dataset mine"
            )
    corpus = Corpus()
    words, tested = corpus.word_folders(root), corpus.word_folders(test_root)
    _check_keywords(keywords, words, tested, data_dir)
    listed = {name: ClipList.read(root / f"{name}_list.txt") for name in ("validation", "testing")}
    if listed["validation"] is None:
        raise ValueError(
            f"no file {root / 'validation_list.txt'}: it decides which clips validate; it names one on each line, such "
            "as yes/0a7c2a8d_nohash_0.wav"
        )
    for word in words:
        for path in corpus.audio_files(root / word):
            named = [name for name, clips in listed.items() if clips is not None and clips.names(path)]
            if "testing" not in named:
                corpus.clips["validation" if named else "train"].append(SourceClip(word, path))
    for word in (*keywords, UNKNOWN, SILENCE):
        if word in tested:
            corpus.clips["test"].extend(SourceClip(word, path) for path in corpus.audio_files(test_root / word))
    corpus.notes += [note for clips in listed.values() if clips is not None for note in clips.unmatched()]
    corpus.noises = corpus.audio_files(root / NOISE_FOLDER) if (root / NOISE_FOLDER).is_dir() else []
    if not corpus.noises:
        raise ValueError(f"no background noises in {root / NOISE_FOLDER}: silence cannot be made; restore that folder")
    return corpus


def add_training_words(corpus: Corpus, folder: Path) -> None:
    """Let training have the recordings of `folder` too, FOLDER/WORD/NAME. ValueError where there are none."""
    if not folder.is_dir():
        raise ValueError(f"--more_train {folder}: no such folder")
    clips = [
        SourceClip(word, path) for word in corpus.word_folders(folder) for path in corpus.audio_files(folder / word)
    ]
    if not clips:
        raise ValueError(f"--more_train {folder}: holds no recordings; it needs one folder per word")
    corpus.clips["train"] += clips


class ClipList:
    """A list file: one clip "word/name.wav" on each line, UTF-8 with or without a byte order mark, either slash. The
    file type of a clip does not matter."""

    def __init__(self, path: Path, lines: dict[str, str]) -> None:
        self._path, self._lines, self._found = path, lines, set[str]()

    @classmethod
    def read(cls, path: Path) -> "ClipList | None":
        """The list at `path`, or None where there is none. ValueError if it is no text."""
        if not path.is_file():
            return None
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: is not UTF-8 ({error.reason} at byte {error.start})") from None
        return cls(path, {_clip_name(line): line.strip() for line in lines if line.strip()})

    def names(self, clip: Path) -> bool:
        """Whether the list names a clip."""
        name = f"{clip.parent.name}/{clip.stem}"
        if name not in self._lines:
            return False
        self._found.add(name)
        return True

    def unmatched(self) -> list[str]:
        """A sentence, if lines named no clip that was asked about."""
        rest = [line for name, line in self._lines.items() if name not in self._found]
        if not rest:
            return []
        return [
            f"{self._path}: {len(rest)} of {len(self._lines)} lines name no clip that is there, the first {rest[0]!r}"
        ]


def _clip_name(line: str) -> str:
    path = PurePosixPath(line.strip().replace("\\", "/"))
    return f"{path.parent.name}/{path.stem}"


def by_word(clips: list[SourceClip]) -> dict[str, list[SourceClip]]:
    """The clips of each word."""
    words = defaultdict(list)
    for clip in clips:
        words[clip.word].append(clip)
    return dict(words)


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
