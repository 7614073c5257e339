"""Stages come back from what a file says of them, and only from that."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vtc_cli.core.errors import VtcError
from vtc_cli.core.shape import ModelShape, TransformerShape
from vtc_cli.core.signals import SIGNAL_NAMES
from vtc_cli.recipe.load import load_recipe
from vtc_cli.recipe.rebuild import rebuild
from vtc_cli.recipe.resolve import resolve

RECIPES = sorted(path.stem for path in (Path(__file__).parents[2] / "recipes").glob("*.yaml"))
SHAPE = ModelShape(
    vision=TransformerShape(6, 64, 4, 4, 16, 256, False),
    patch_inputs=48,
    patches=576,
    class_tokens=1,
    feature_layers=5,
    projector=((64, 128), (128, 128)),
    decoder=TransformerShape(12, 128, 4, 2, 32, 344, True, 512),
)


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("fidelity", ["sound", "official"])
def test_every_stage_survives_json(name: str, fidelity: str) -> None:
    plan = resolve(
        load_recipe(name),
        SHAPE,
        family_signals=frozenset(SIGNAL_NAMES),
        original_tokens=576,
        fidelity=fidelity,  # type: ignore[arg-type]
    )
    for planned in plan.stages:
        said = json.loads(json.dumps(planned.plain()))
        again = rebuild(said["stage"], said["parameters"], said["declared"])
        assert again.stage == planned.stage
        assert again.plain() == planned.plain()
    assert plan.stages or name == "full"


FAULTS = {
    "no such stage": ("mustdrop.nothing", {}, "nothing"),
    "no such module": ("nothing.at_all", {}, "nothing"),
    "unknown value": ("mustdrop.output_aware_cache", {"depth": 3}, "no hyper-parameter depth"),
    "wrong type": ("mustdrop.output_aware_cache", {"first_layer": "two"}, "integer"),
    "out of range": ("mustdrop.key_tokens", {"protect_ratio": 1.5}, "0..1"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_stage_that_does_not_fit_is_refused(case: str) -> None:
    name, values, words = FAULTS[case]
    with pytest.raises(VtcError) as caught:
        rebuild(name, values, {})
    assert words in str(caught.value)
