"""`deltarnn bench`: where it writes. What it measures is no matter of tests."""

from pathlib import Path

import pytest

from deltarnn.bench import engine
from deltarnn.cli import main


@pytest.mark.parametrize(("flags", "folder"), [([], "bench"), (["--quick"], "bench/quick")])
def test_the_results_of_a_checkout_stay_as_they_are(flags, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(engine, "run", lambda output, quick: (output / "engine.md").write_text(f"{quick}"))
    assert main(["bench", "--what", "engine", *flags]) == 0
    assert [path for path in Path().rglob("*") if path.is_file()] == [Path(folder, "engine.md")]
    assert capsys.readouterr().out == f"written to {folder}\n"
