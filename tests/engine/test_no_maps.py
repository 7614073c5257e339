"""Under a recipe no tensor of the size of an attention map is ever made."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.engine.support import noise_media, session_of
from vtc_cli.core.plan import Plan
from vtc_cli.engine.decode import Generation
from vtc_cli.models.llava import LlavaAdapter
from vtc_cli.recipe.load import load_recipe
from vtc_cli.recipe.resolve import resolve


class LargestSquare(TorchDispatchMode):
    """Remembers the largest N of an output whose last two sides are both N or more."""

    def __init__(self) -> None:
        super().__init__()
        self.side = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and not leaf.is_sparse and leaf.ndim >= 2:
                self.side = max(self.side, min(leaf.shape[-2:]))
        return result


@pytest.mark.parametrize("name", ["mustdrop", "snapkv", "h2o"])
def test_no_map_is_made(name: str) -> None:
    adapter = LlavaAdapter.narrow(0)
    prompt = adapter.prepare(noise_media(1), "what is on the left of the picture?")
    plan = resolve(
        load_recipe(name),
        adapter.shape,
        family_signals=adapter.provides,
        original_tokens=576,
        budget=128,
    )
    sides = {}
    for recipe, chosen in {"full": Plan("full"), name: plan}.items():
        with LargestSquare() as mode:
            session_of(adapter).run(prompt, chosen, Generation(max_new_tokens=2))
        sides[recipe] = mode.side
    # The widest weight is 128 x 32 and the picture 336 x 336; a map would be 577 or 600 a side.
    assert sides[name] <= max(sides["full"], 336) < 576
