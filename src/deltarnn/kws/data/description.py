"""The data description: which clips train, validate and test, with their labels, and where they are."""

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deltarnn.files import read_json, write_json, write_text
from deltarnn.kws.config.resolve import Config, digest
from deltarnn.kws.data.corpus import GROUPS, SILENCE, UNKNOWN
from deltarnn.kws.paths import portable


@dataclass(frozen=True)
class Row:
    """One line of the data description; `path` is the whole path, in the file relative to the work folder it is in."""

    group: str
    keyword: str
    label: int
    path: str


@dataclass(frozen=True)
class Description:
    """The data description: its rows, class names by label, background noises, settings, and a digest of all that."""

    rows: list[Row]
    class_names: list[str]
    noises: list[str]
    settings: dict[str, Any]
    digest: str

    def group(self, name: str) -> list[Row]:
        """Rows of "train", "validation" or "test"."""
        return [row for row in self.rows if row.group == name]

    @property
    def clip_seconds(self) -> float:
        """Length of all clips."""
        return float(self.settings.get("clip_seconds", 1.0))  # version 0.1.0 knew no other

    @property
    def of_levels(self) -> bool:
        """Whether clips are features that were made elsewhere (deltarnn.kws.features.levels), and not recordings."""
        return "front_end" in self.settings

    def __str__(self) -> str:
        counts = Counter(row.group for row in self.rows)
        return ", ".join(f"{counts[group]} {group}" for group in GROUPS) + f" clips, {len(self.class_names)} classes"


def read_description(config: Config) -> Description:
    """The data description that `prepare` wrote. ValueError says how to make it."""
    folder = config.folder("data")
    description = load_description(folder)
    if description is None:
        raise ValueError(f"no data description in {folder}: type {config.command('prepare')}")
    if "keywords" in config.given and list(config.data.keywords) != description.class_names[2:]:
        words = ",".join(config.data.keywords)
        raise ValueError(
            f"--keywords {words}: {folder} was prepared for {','.join(description.class_names[2:])}; "
            f"leave the flag out, or type {config.command('prepare')}"
        )
    return description


def ordered(rows: list[Row]) -> list[Row]:
    """Rows in the order in which they are kept."""
    return sorted(rows, key=lambda row: (GROUPS.index(row.group), row.label, row.path))


def write_description(
    folder: Path, rows: list[Row], keywords: Sequence[str], noises: Sequence[Path], settings: dict[str, Any],
    report: dict[str, Any],
) -> Description:  # fmt: skip
    """Write description.csv and description.json into `folder`; `report` joins the latter as it is."""
    rows = ordered(rows)
    root = _root(folder)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["group", "keyword", "label", "path"])
    writer.writerows((row.group, row.keyword, row.label, portable(row.path, root)) for row in rows)
    write_text(folder / "description.csv", text.getvalue())
    class_names = [SILENCE, UNKNOWN, *keywords]
    noises = [path.resolve() for path in noises]
    facts = {
        "settings": settings,
        "class_names": class_names,
        "noises": [portable(path, root) for path in noises],
        "rows": text_digest(text.getvalue()),
    }
    write_json(folder / "description.json", {**facts, "digest": digest(facts), **report})
    return Description(rows, class_names, [str(path) for path in noises], settings, digest(facts))


_UNSIGNED = {"settings", "class_names", "noises", "rows", "skipped", "left_out"}
"""Fields of a description.json of version 0.1.0, which had no digest of its own."""


def load_description(folder: Path) -> Description | None:
    """The description in a folder, or None where there is none, or it is not as it was written."""
    facts, path, root = read_json(folder / "description.json"), folder / "description.csv", _root(folder)
    try:
        text = path.read_text(encoding="utf-8")
        unsigned, noted = facts.keys() == _UNSIGNED, facts.get("digest")
        facts = {name: facts[name] for name in ("settings", "class_names", "noises", "rows")}
    except (OSError, UnicodeDecodeError, TypeError, KeyError, AttributeError):
        return None
    noted = digest(facts) if unsigned else noted
    if noted != digest(facts) or facts["rows"] != text_digest(text):
        return None
    rows = [
        Row(row["group"], row["keyword"], int(row["label"]), str(root / row["path"]))
        for row in csv.DictReader(io.StringIO(text))
    ]
    noises = [str(root / name) for name in facts["noises"]]
    return Description(rows, facts["class_names"], noises, facts["settings"], noted)


def _root(folder: Path) -> Path:
    """The work folder of data/DATASET."""
    return folder.resolve().parents[1]


def text_digest(text: str) -> str:
    """Sixteen hexadecimal digits that stand for a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
