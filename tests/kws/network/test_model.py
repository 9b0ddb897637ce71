"""Keyword networks from model files."""

import pytest
from tests.kws.spotter.conftest import save_random_model

from deltarnn.engine import ModelFileError, load_model, save_model
from deltarnn.kws.network.model import load_keyword_model


@pytest.mark.parametrize("option", [{"reset_after": False}, {"candidate": "relu"}])
def test_another_gru_than_the_keyword_models_is_refused(tmp_path, option):
    path = tmp_path / "model.safetensors"
    save_random_model(path)
    tensors, header = load_model(path)
    assert load_keyword_model(path)[0].architecture.cell == "GRU"
    save_model(path, tensors, {**header, "architecture": {**header["architecture"], **option}})
    with pytest.raises(ModelFileError, match="resets before the product, or has another candidate"):
        load_keyword_model(path)
