"""The attention of a decoder layer before it runs: its own norm and projections, nothing more.

The layer is called without a cache and left at its attention function, by then queries and keys are
made, rotated and normed as this family does it. So no family is known here.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from vtc_cli.core.errors import SignalError
from vtc_cli.engine.tap import AttentionTap, Capture, captured
from vtc_cli.models.support.base import Adapter


def attention_ahead(
    adapter: Adapter, layer: int, hidden: Tensor, arguments: dict[str, Any]
) -> tuple[Capture, int]:
    """What the attention of `layer` will see, without its output, and the operations it took.

    Args:
        adapter: of the model.
        layer: decoder layer that is about to run.
        hidden: (1, n, d) its input.
        arguments: what the layer is called with, fitted to the n tokens.

    Raises:
        SignalError: the layer never reached its attention function.
    """
    module = adapter.decoder_attention(layer)
    own = {**arguments, "past_key_values": None, "use_cache": False}
    try:
        with _Glance([(module, layer)], adapter.decoder.config._attn_implementation):
            # `forward` and not the call: the hooks on the block are those of the real pass
            adapter.decoder_layers[layer].forward(hidden, **own)
    except _SeenError as seen:
        return seen.capture, seen.flops(int(hidden.shape[-1]))
    raise SignalError(f"decoder layer {layer} does not call the attention function of the library")


class _SeenError(Exception):
    """Leaves a layer at its attention function."""

    def __init__(self, capture: Capture) -> None:
        super().__init__()
        self.capture = capture

    def flops(self, width: int) -> int:
        """Operations of the query, key and value projections, 2 a multiply-add."""
        query, key = self.capture.query, self.capture.key
        return 2 * width * (query.numel() + 2 * key.numel())


class _Glance(AttentionTap):
    """A tap that ends the call it waits for."""

    def _call(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        **options: Any,
    ) -> Any:
        nothing = query.new_empty(0)
        raise _SeenError(captured(module, query[0], key[0], value[0], mask, options, 0, nothing))
