"""Every recipe on every family that has its signals, on narrow models of true geometry."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.conformance.cells import (
    SETTINGS,
    Subject,
    checked,
    recipe_names,
    subject,
    subjects,
)
from tests.conformance.write import MATRIX, sections
from tests.engine.families import family_session
from tests.tolerance import close
from vtc_cli.core.plan import Plan
from vtc_cli.engine.decode import Generation
from vtc_cli.models.support.prompt import Kind

STEPS = 3
EFFECT = 1e-4
SUBJECTS = list(subjects())
NAMES = [" ".join(each) for each in SUBJECTS]
# Every cell takes minutes in all; the suite runs three subjects, `-m slow` all, `make matrix` too.
ALWAYS = [("llava", "image"), ("llava_next", "image"), ("qwen3_vl", "video")]
QUICK = [
    pytest.param(pair, id=name, marks=() if pair in ALWAYS else pytest.mark.slow)
    for pair, name in zip(SUBJECTS, NAMES, strict=True)
]


def library_inputs(chosen: Subject) -> dict[str, Any]:
    """What `generate` takes for the prompt; positions are its own affair."""
    adapter, prompt = chosen.adapter, chosen.prompt
    ids = prompt.input_ids
    inputs: dict[str, Any] = {"input_ids": ids, **prompt.encoder_inputs}
    inputs |= adapter.sequence_arguments(ids)
    if adapter.family.startswith("qwen"):
        config = adapter.model.config
        kinds = (ids == config.image_token_id) + 2 * (ids == config.video_token_id)
        inputs["mm_token_type_ids"] = kinds
    return inputs


@pytest.mark.parametrize(
    "settings", ["float32 sdpa", pytest.param("float32 eager", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("pair", SUBJECTS, ids=NAMES)
def test_keeping_everything_is_generate(pair: tuple[str, Kind], settings: str) -> None:
    chosen = subject(*pair, settings)
    done = chosen.adapter.model.generate(
        **library_inputs(chosen),
        max_new_tokens=STEPS,
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
    )
    plan, generation = Plan("full"), Generation(max_new_tokens=STEPS)
    trace = family_session(chosen.adapter).run(chosen.prompt, plan, generation)
    assert trace.answer_ids == done.sequences[0, chosen.prompt.prompt_tokens :].tolist()
    if settings.endswith("sdpa"):
        assert torch.equal(trace.first_logits, done.logits[0][0].float())  # type: ignore[arg-type]
    else:
        close(trace.first_logits, done.logits[0][0], model=chosen.adapter)


@pytest.mark.parametrize("recipe", recipe_names())
@pytest.mark.parametrize("pair", QUICK)
def test_a_recipe_keeps_its_promises(pair: tuple[str, Kind], recipe: str) -> None:
    outcome = checked(recipe, subject(*pair))
    assert (outcome.refused is not None) == ((*pair, recipe) in refused_cells())
    if outcome.refused is not None:
        return
    assert outcome.text_untouched and not outcome.hooks_left
    if outcome.requested is not None:
        assert abs(outcome.layer_average - outcome.requested) <= 0.5
    if outcome.difference is not None:
        assert outcome.difference <= outcome.allowed
        assert outcome.effect > EFFECT or outcome.layer_average == outcome.original_tokens


def refused_cells() -> set[tuple[str, str, str]]:
    """The cells that the generated page lists as refused."""
    listed = sections(MATRIX.read_text(encoding="utf-8"))["refused"].splitlines()
    rows = [row.strip("| ").split(" | ") for row in listed if row.startswith("| ")]
    return {
        (family, kind, recipe.strip("`"))
        for family, kind, recipe, *_ in rows
        if family not in ("family", "---")
    }


def test_the_page_is_of_these_recipes_and_families() -> None:
    text = MATRIX.read_text(encoding="utf-8")
    assert all(f"`{name}`" in text for name in recipe_names())
    assert all(f"| {family} | {kind} |" in text for family, kind in SUBJECTS)
    assert "BROKEN" not in text


@pytest.mark.slow
@pytest.mark.parametrize("settings", [name for name in SETTINGS if name != "float32 sdpa"])
@pytest.mark.parametrize("recipe", recipe_names("other"))
@pytest.mark.parametrize("pair", SUBJECTS, ids=NAMES)
def test_other_precisions_stay_near_their_masked_model(
    pair: tuple[str, Kind], recipe: str, settings: str
) -> None:
    if pair not in subjects(settings):
        pytest.skip("slow on a CPU: a few families stand for all")
    outcome = checked(recipe, subject(*pair, settings))
    if outcome.difference is not None:
        assert outcome.difference <= outcome.allowed
