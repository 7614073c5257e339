"""FasterVLM: keep the patches that [CLS] attends to most (arXiv 2412.01818)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from vtc_cli.core.counts import Steering, VisualCounts
from vtc_cli.core.decision import Decision
from vtc_cli.core.signals import Signals
from vtc_cli.core.stage import EncoderStage, parameter
from vtc_cli.core.tokens import TokenTable
from vtc_cli.stages.ops.allowance import counted_entering, entering_allowed
from vtc_cli.stages.ops.select import require_finite
from vtc_cli.stages.ops.views import attention_source, even_top, patch_attention, views

PAPER = "FasterVLM, arXiv 2412.01818"


@dataclass(frozen=True, kw_only=True)
class ClsAttention(EncoderStage):
    """Keeps the tokens with the highest attention of [CLS], mean over heads, in raster order.

    Every picture and every frame gives the same number of tokens. Tokens leave behind the
    projector, which treats each row alone: leaving before it is the same.

    Deviation: a tower without [CLS] ranks by the attention that a token receives from all others,
    which is the authors' answer for such towers; the paper has [CLS] only.
    Deviation: the tokens are those of a picture with all its crops; the official code keeps as many
    of each crop.
    Deviation: ties go to the lowest index; the official top-k leaves them open.
    Deviation: protected tokens stay whatever their attention; FasterVLM alone has none.
    Deviation: at least one token stays; the paper's row of 0 tokens is a prompt without a picture
    (`fidelity: official` keeps that).
    """

    paper: ClassVar[str] = PAPER
    needs: ClassVar[frozenset[str]] = frozenset({"vision_received_attention"})
    meets_budget: ClassVar[bool] = True
    attention_layer: int = parameter(
        -2,
        "tower layer whose [CLS] attention ranks, the one that makes the features",
        source="official code",
        layer_of="vision",
    )
    tokens: int = parameter(
        144,
        "tokens left without a budget",
        source="paper; 432, 288, 144, 58 and 29 in its tables",
        minimum=0,
        steers=Steering(1, None),
    )
    fidelity: Literal["sound", "official"] = parameter("sound", "whether none may be left")

    def decide(self, tokens: TokenTable, signals: Signals) -> Decision:
        """Keep the best n; with n >= N nothing changes."""
        wanted = entering_allowed(tokens, signals, self.tokens, self._least)
        if wanted >= len(tokens):
            note = f"{wanted} tokens allowed, {len(tokens)} here"
            return Decision.identity(len(tokens), tokens.features.device, note=note)
        scores = require_finite(patch_attention(signals, self.attention_layer), "attention")
        keep = even_top(scores, views(tokens), tokens.protected, wanted)
        return Decision.prune(keep, len(tokens), scores=scores, note=attention_source(signals))

    def count(self, counts: VisualCounts) -> VisualCounts | None:
        """What `decide` leaves, told by numbers alone."""
        return counted_entering(counts, self.tokens, self._least)

    @property
    def _least(self) -> int:
        return int(self.fidelity == "sound")
