"""The two ways in which an imported graph runs."""

import pytest

pytest.importorskip("onnxruntime")

from deltarnn.onnx import lowering


@pytest.fixture(params=["native", "sessions"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Graphs run as one native program where they can, or never do."""
    if request.param == "sessions":
        monkeypatch.setattr(lowering, "LARGEST", -1)
    name: str = request.param
    return name
