"""Paths that stay valid when a work folder moves."""

from pathlib import Path


def work_folder(path: Path, kind: str) -> Path | None:
    """WORK_DIR of a file WORK_DIR/kind/DATASET/NAME/FILE, or None where it lies elsewhere."""
    parents = path.resolve().parents
    return parents[3] if len(parents) > 3 and parents[2].name == kind else None


def portable(path: str | Path, root: Path | None) -> str:
    """A path as it is kept in files: relative to the work folder `root` if inside it, else absolute."""
    whole = Path(path).resolve()
    return whole.relative_to(root).as_posix() if root is not None and whole.is_relative_to(root) else str(whole)
