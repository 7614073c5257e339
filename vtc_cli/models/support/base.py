"""What the engine needs to know of a model family; one adapter file a family provides it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vtc_cli.core.errors import MediaError, ModelError
from vtc_cli.core.media import Media
from vtc_cli.core.shape import ModelShape
from vtc_cli.models.support.checkpoint import checkpoint_errors
from vtc_cli.models.support.decoder import DecoderAccess
from vtc_cli.models.support.fitting import MOST_PIXELS, averaged
from vtc_cli.models.support.parts import (
    CHAT,
    IMAGES,
    TOKENIZER,
    Parts,
    as_taken,
    prompt_ids,
    visual_places,
)
from vtc_cli.models.support.prompt import (
    EncoderOutput,
    Kind,
    Prompt,
    Seen,
    in_span_order,
    layout_of,
    longer_ids,
)

# Signals that every family gives: the engine reads them off the projector and the decoder.
COMMON_SIGNALS = frozenset(
    {
        "vision_features",
        "projected_features",
        "text_embeddings",
        "attention_rows",
        "attention_output",
        "attention_projection",
        "keys",
        "values",
        "hidden",
    }
)
# Signals of a tower whose attention runs over all patches of a picture.
TOWER_SIGNALS = frozenset({"vision_received_attention", "vision_keys"})
CLASS_SIGNALS = frozenset({"vision_cls_attention"})  # of a tower with a [CLS] row


class Adapter(DecoderAccess, ABC):
    """One loaded model with its processor.

    Class attributes:
        family: name of the adapter file.
        model_types: values of `config.model_type` that the adapter handles.
        provides: names of the signals that the family can give.
        takes: what a prompt may show, pictures or videos or both.
        several: whether a prompt may show more than one.
        fallback: format of a prompt, with `{visuals}` and `{question}`, for checkpoints without a
            chat template.
        most_pixels: of a picture or frame; larger ones are averaged over blocks before it is seen.
    """

    family: ClassVar[str]
    model_types: ClassVar[tuple[str, ...]]
    provides: ClassVar[frozenset[str]]
    takes: ClassVar[frozenset[Kind]] = frozenset({"image"})
    several: ClassVar[bool] = True
    most_pixels: ClassVar[int] = MOST_PIXELS
    fallback: ClassVar[str]

    def __init__(self, model: Any, processor: Any) -> None:
        self.model = model
        self.processor = processor
        if not self.shape.class_tokens:  # the towers of a family may differ
            self.provides = self.provides - CLASS_SIGNALS  # type: ignore[misc]

    @classmethod
    @abstractmethod
    def load(cls, source: str, **options: Any) -> Adapter:
        """Load a checkpoint in the Hugging Face format; `options` go to `from_pretrained`."""

    @classmethod
    @abstractmethod
    def narrow(cls, seed: int) -> Adapter:
        """Random weights at true depth and token geometry, shrunk in width."""

    @classmethod
    def true_size(cls, fields: Mapping[str, Any], build: Callable[[Any, Any], Any]) -> Adapter:
        """Random weights at true size.

        Args:
            fields: of the library's configuration class.
            build: makes the model of a class and a configuration, on its device and in its dtype.

        Raises:
            ModelError: the family ships no true sizes.
        """
        raise ModelError(
            f"the family {cls.family} ships no true sizes", hint=f"narrow:{cls.family}"
        )

    @property
    def source(self) -> str:
        """Folder or hub id of the checkpoint; the family where there is none."""
        return str(getattr(self.model.config, "name_or_path", "") or self.family)

    @property
    @abstractmethod
    def shape(self) -> ModelShape:
        """Sizes of the model."""

    @property
    def tower_layers(self) -> Sequence[nn.Module]:
        """Blocks of the vision tower; pictures, crops and frames are their batch."""
        layers: Sequence[nn.Module] = self.model.model.vision_tower.encoder.layers
        return layers

    def tower_attention(self, layer: int) -> nn.Module:
        """The attention module of tower block `layer`."""
        module: nn.Module = self.tower_layers[layer].self_attn  # type: ignore[assignment]
        return module

    @property
    @abstractmethod
    def projector(self) -> nn.Module:
        """The map from tower states to decoder width; its input has one row a visual token."""

    def projector_rows(self, states: Sequence[Tensor], prompt: Prompt) -> Tensor:
        """(N, d_vision) what the projector reads of each token.

        Args:
            states: its input in each of its calls.
            prompt: what was seen.
        """
        return torch.cat([part.reshape(-1, part.shape[-1]) for part in states])

    def project(self, rows: Tensor) -> Tensor:
        """(n, d) what the projector makes of rows (n, d_vision) in the form of `projector_rows`."""
        projected: Tensor = self.projector(rows[None])[0]
        return projected

    def pooled(self, patches: Tensor, prompt: Prompt) -> Tensor:
        """Means over the patches that the model joins to each visual token.

        A signal of the tower thus becomes one of the tokens: attention to a token is the mean over
        its patches, its key their mean key. Nothing changes where tower rows are the tokens.

        Args:
            patches: (P, ...) values of all patches, picture after picture in raster order.
            prompt: what was seen.

        Returns:
            (N0, ...) of the same dtype.
        """
        joined = self.shape.merged_patches
        if joined == 1 or prompt.pooled is not None:
            return patches
        side, inner = round(joined**0.5), patches.shape[1:]
        tokens = []
        for grid, start in prompt.layout.placed():
            own = patches[start * joined : (start + grid.tokens) * joined]
            blocks = own.reshape(grid.frames, grid.rows, side, grid.columns, side, *inner)
            tokens.append(blocks.float().mean(dim=(2, 4)).flatten(0, 2))
        return torch.cat(tokens).to(patches.dtype)

    def prepare(self, media: Media | Sequence[Media], question: str) -> Prompt:
        """Turn pictures, videos and a question into model inputs on the device.

        Raises:
            MediaError: something that the family does not take.
            UsageError: a question with placeholders.
            ModelError: the checkpoint's processor, tokenizer or chat template is broken.
        """
        shown = (media,) if isinstance(media, Media) else tuple(media)
        self._check(shown)
        taken = [as_taken(each, self.takes, self.family) for each in shown]
        with checkpoint_errors(self.source, IMAGES):
            seen = self._seen(taken)
            joined = self.joined_inputs(seen)
        with checkpoint_errors(self.source, CHAT):
            input_ids = prompt_ids(self.parts, self.fallback, seen, question).to(self.device)
            ids, tokens = self.placeholder_ids, layout_of(seen).tokens
            places = visual_places(self.parts, input_ids, ids, tokens, question)
            positions = self.positions(input_ids, seen)
        return Prompt(
            input_ids=input_ids,
            position_ids=positions,
            visual_index=places,
            seen=seen,
            encoder_inputs={name: value.to(self.device) for name, value in joined.items()},
            question=question,
            warnings=_warnings(seen),
        )

    def unpooled(self, prompt: Prompt) -> Prompt:
        """The prompt with its videos as they are before the family's own pooling of frames.

        Warnings stay, for what enters the decoder is up to the stage that pools instead. Pictures
        and families that join patches inside tower or projector (Qwen, InternVL, SmolVLM, Gemma)
        have no such pooling: then this is `prompt` itself.
        """
        if all(one.unpooled is None for one in prompt.seen):
            return prompt
        seen = tuple(one.unpooled or one for one in prompt.seen)
        input_ids = longer_ids(prompt, layout_of(seen))
        return replace(
            prompt,
            input_ids=input_ids,
            position_ids=self.positions(input_ids, seen),
            visual_index=visual_places(
                self.parts,
                input_ids,
                self.placeholder_ids,
                layout_of(seen).tokens,
                prompt.question,
            ),
            seen=seen,
            pooled=prompt,
        )

    def turn_ids(self, question: str, last_id: int) -> Tensor:
        """(1, T) ids that lead from an answer to the answer of a further question.

        Args:
            question: what is asked now.
            last_id: last token of the answer, which comes first here; no second one like it follows
                where the answer ended with the token that closes a turn.
        """
        with checkpoint_errors(self.source, CHAT):
            text = self.parts.next_turn(self.fallback, question)
            ids: list[int] = self.parts.tokenizer(text, add_special_tokens=False).input_ids
        if ids and ids[0] == last_id:
            ids = ids[1:]
        return torch.tensor([[last_id, *ids]], dtype=torch.int64, device=self.device)

    def part(self, prompt: Prompt, span: int) -> Prompt:
        """What the tower needs of one picture or video of a prompt."""
        seen = (prompt.seen[span],)
        joined = {name: value.to(self.device) for name, value in self.joined_inputs(seen).items()}
        scorers = prompt.frame_scorers[span : span + 1]
        return replace(prompt, seen=seen, encoder_inputs=joined, frame_scorers=scorers)

    def _check(self, shown: Sequence[Media]) -> None:
        if len(shown) > 1 and not self.several:
            raise MediaError(
                f"{len(shown)} pictures and videos",
                allowed=f"one in a prompt of the family {self.family}",
                hint="`vtc models` lists the families",
            )

    def _seen(self, shown: Sequence[Media]) -> tuple[Seen, ...]:
        """What the model is shown, large pictures made smaller before."""
        smaller = [averaged(media, self.most_pixels) for media in shown]
        return tuple(
            one.scaled(own.width / less.width, own.height / less.height)
            for own, less, one in zip(shown, smaller, self.see_all(smaller), strict=True)
        )

    def see_all(self, shown: Sequence[Media]) -> tuple[Seen, ...]:
        """What the model is shown of a whole prompt."""
        return tuple(self.see(media) for media in shown)

    @abstractmethod
    def see(self, media: Media) -> Seen:
        """What the model is shown of one picture or video."""

    @property
    def parts(self) -> Parts:
        """Tokenizer, image processor and chat template."""
        template = getattr(self.processor, "chat_template", None)
        return Parts(self.processor.tokenizer, self.processor.image_processor, template)

    @property
    def placeholder_ids(self) -> tuple[int, ...]:
        """Token ids that stand for visual tokens."""
        config = self.model.config
        names = ("image_token_id", "video_token_id", "image_token_index", "video_token_index")
        found = (getattr(config, name, None) for name in names)
        return tuple(dict.fromkeys(each for each in found if each is not None))

    def joined_inputs(self, seen: Sequence[Seen]) -> Mapping[str, Tensor]:
        """Arguments of the tower for all spans: those of each, one behind the other."""
        names = dict.fromkeys(name for one in seen for name in one.inputs)
        return {
            name: joined([one.inputs[name] for one in seen if name in one.inputs]) for name in names
        }

    def positions(self, input_ids: Tensor, seen: Sequence[Seen]) -> Tensor:
        """(..., 1, S) position ids as `generate` counts them."""
        return torch.arange(input_ids.shape[1], device=input_ids.device)[None]

    def encode(self, prompt: Prompt) -> EncoderOutput:
        """Run tower and projector through the model's own methods."""
        carriers: dict[Kind, Any] = {}
        for kind in sorted(set(prompt.kinds)):
            mine = {
                name: value
                for name, value in prompt.encoder_inputs.items()
                if ("video" in name) == (kind == "video")
            }
            carriers[kind] = self.tower_output(kind, mine, prompt)
        flat = {kind: flat_rows(carrier.pooler_output) for kind, carrier in carriers.items()}
        features = in_span_order(prompt, flat)
        return EncoderOutput(features, carriers, prompt.kinds, self.added(carriers, prompt))

    def tower_output(self, kind: Kind, inputs: Mapping[str, Tensor], prompt: Prompt) -> Any:
        """What the library's method for `kind` gives on its arguments."""
        method = getattr(self.model.model, f"get_{kind}_features")
        return method(**inputs, return_dict=True)

    def projected_patches(self, pixels: Tensor) -> Tensor:
        """(F, P, d) what tower and projector make of frames (F, 3, H, W), as if none were pooled.

        The library's methods for videos go on to pool, so its two modules are called here.
        """
        model, chosen = self.model.model, self.model.config.vision_feature_layer
        states = model.vision_tower(pixels, output_hidden_states=True, return_dict=True)
        layers = [chosen] if isinstance(chosen, int) else chosen
        joined = torch.cat([states.hidden_states[layer] for layer in layers], dim=-1)
        projected: Tensor = model.multi_modal_projector(joined[:, self.shape.class_tokens :])
        return projected

    def added(self, carriers: Mapping[Kind, Any], prompt: Prompt) -> tuple[Tensor, ...]:
        """Rows (N, d) that the first decoder layers add."""
        return ()

    def carry(self, features: Tensor, kinds: tuple[Kind, ...]) -> EncoderOutput:
        """Objects of the library around `features` (N, d) that no tower of this run made."""
        return EncoderOutput(features, {kind: self.carrier() for kind in kinds}, kinds)

    def carrier(self) -> Any:
        """The library's own output class without a tower's states."""
        from transformers.modeling_outputs import BaseModelOutputWithPooling

        return BaseModelOutputWithPooling()

    def prefill_arguments(
        self, output: EncoderOutput, features: Tensor, span: Tensor
    ) -> dict[str, Any]:
        """Arguments that hand tokens to the model in place of the encoder's own.

        Args:
            output: of the encoder.
            features: (N, d) tokens that are left, in the order in which they stand.
            span: (N,) span of each.
        """
        for kind, carrier in output.carriers.items():
            mine = features if len(output.carriers) == 1 else features[output.rows_of(kind, span)]
            carrier.pooler_output = self.handed(mine)
        return {"mm_encoder_outputs": dict(output.carriers)}

    def handed(self, features: Tensor) -> Any:
        """Features (N, d) of one kind in the form in which the model reads them."""
        return [features]

    def text(self, token_ids: Sequence[int]) -> str:
        """The words of `token_ids` without special tokens."""
        with checkpoint_errors(self.source, TOKENIZER):
            words = self.parts.tokenizer.decode(list(token_ids), skip_special_tokens=True)
        return str(words).strip()


def joined(parts: Sequence[Tensor]) -> Tensor:
    """Rows one behind the other; no copy of a single part, which may be large."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def flat_rows(pooled: Any) -> Tensor:
    """(N, d) of a `pooler_output`: a tensor with leading axes, or a list of them."""
    parts = [pooled] if isinstance(pooled, Tensor) else list(pooled)
    rows = [part.reshape(-1, part.shape[-1]) for part in parts]
    return rows[0] if len(rows) == 1 else torch.cat(rows)


def _warnings(seen: Sequence[Seen]) -> tuple[str, ...]:
    """What is to be said of any span, once."""
    return tuple(dict.fromkeys(text for one in seen for text in one.warnings))
