"""Idefics3: pictures in tiles as SmolVLM takes them, no videos."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from vtc_cli.models.smolvlm import SmolVLMAdapter, narrow_tower
from vtc_cli.models.support.prompt import Kind


class Idefics3Adapter(SmolVLMAdapter):
    """`Idefics3ForConditionalGeneration` (arXiv 2408.12637); the first SmolVLM is one too."""

    family: ClassVar[str] = "idefics3"
    model_types: ClassVar[tuple[str, ...]] = ("idefics3",)
    takes: ClassVar[frozenset[Kind]] = frozenset({"image"})
    # The turns of the published checkpoint around picture and question.
    fallback: ClassVar[str] = "User:{visuals}{question}<end_of_utterance>\nAssistant:"

    @classmethod
    def library(cls) -> tuple[Any, Any]:
        """Classes of the library: the model and its image processor."""
        from transformers import Idefics3ForConditionalGeneration
        from transformers.models.idefics3.image_processing_pil_idefics3 import (
            Idefics3ImageProcessorPil,
        )

        return Idefics3ForConditionalGeneration, Idefics3ImageProcessorPil

    @classmethod
    def narrow(cls, seed: int) -> Self:
        """The depth of Idefics3-8B, its 169 tokens a tile and 4 x 4 tiles, at width 64."""
        tower = narrow_tower(364)
        return cls.random(seed, width=64, layers=32, vision=tower, scale=2, positions=131072)
