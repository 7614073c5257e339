"""Names of models: a misspelling is told at once, and a hub out of reach is asked once."""

from __future__ import annotations

import pytest
from huggingface_hub import constants

from vtc_cli.core.errors import ModelError
from vtc_cli.models.support.load import LoadOptions, load_model


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("tinny", "--model tiny"),
        ("tiny_video", "--model tiny-video"),
        ("llava", "--model narrow:llava"),
        ("narow:llava", "--model narrow:llava"),
        ("llava-1.5-7b", "--model shape:llava-1.5-7b"),
        ("shape-llava-1.5-7b", "--model shape:llava-1.5-7b"),
        ("shape:llava-1.5-7", "--model shape:llava-1.5-7b"),
        ("narrow:lava", "narrow:llava"),
        ("xyzzy", None),
        ("", None),
    ],
)
def test_a_misspelt_model_is_told_without_the_hub(
    monkeypatch: pytest.MonkeyPatch, name: str, hint: str | None
) -> None:
    monkeypatch.setattr("huggingface_hub.HfApi", None)  # whoever asks it, fails
    with pytest.raises(ModelError) as caught:
        load_model(name, LoadOptions(device="cpu"))
    assert caught.value.hint == hint


def test_a_hub_out_of_reach_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing listens on port 9; the library alone would try again for 24 seconds a file."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ModelError) as caught:
        load_model("someone/none", LoadOptions(device="cpu"))
    assert caught.value.where == "someone/none"
    assert constants.HF_HUB_OFFLINE
