"""What stages leave, told by numbers alone: no tensor, no picture, no model.

Many rules keep a number of tokens that follows from numbers: a share of what comes in, a count, a
schedule. Such a stage says so in `count`, and a recipe made of such stages can be worked out in a
moment. What depends on the data, a threshold for instance, has no answer here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from vtc_cli.core.budget import LayerBudget
from vtc_cli.core.layout import Layout


@dataclass(frozen=True)
class Steering:
    """How a hyper-parameter governs how much its stage leaves.

    Attributes:
        fewest: the value under which least is left.
        most: the value under which most is left; None for as many tokens (entries) as there are.
        unless: another hyper-parameter that takes the place of this one where it is set.
    """

    fewest: float
    most: float | None
    unless: str = ""


@dataclass(frozen=True)
class VisualCounts:
    """Visual tokens of one picture or video where a stage acts.

    Attributes:
        tokens: that come in.
        protected: those of them that no stage may drop.
        layout: geometry of the original tokens.
        decoder_layers: D.
        layer: decoder layer or tower layer at whose input the stage acts, -1 behind the projector.
        entering: tokens that entered decoder layer 0; None before that is known.
        processed: tokens that each decoder layer before this one has processed.
        budget: the layer average asked for, or None.
    """

    tokens: int
    protected: int
    layout: Layout
    decoder_layers: int
    layer: int = -1
    entering: int | None = None
    processed: tuple[int, ...] = ()
    budget: LayerBudget | None = None

    def left(self, tokens: int) -> VisualCounts:
        """The same with `tokens` left, never more than came in."""
        return replace(self, tokens=min(tokens, self.tokens))


@dataclass(frozen=True)
class CacheCounts:
    """Entries of one head in the cache of one decoder layer.

    Attributes:
        layer: decoder layer.
        entries: held now, text and visual.
        visual: visual ones among them, None once that depends on the data.
        alive: visual ones that the last decoder layer still processed, None once that depends on
            the data.
        protected: visual ones that no policy may drop.
        prompt_entries: held after the prompt, before any policy.
        budget: entries asked for, or None.
    """

    layer: int
    entries: int
    visual: int | None
    alive: int | None
    protected: int
    prompt_entries: int
    budget: int | None = None

    def only_alive(self) -> CacheCounts | None:
        """What is left if visual entries go that the last layer did not process."""
        if self.visual is None or self.alive is None:
            return None
        entries = self.entries - self.visual + self.alive
        return replace(self, entries=entries, visual=self.alive)

    def held_to(self, count: int, must: int, visual_only: bool) -> CacheCounts | None:
        """What is left if the best `count` of the ruled entries stay.

        Args:
            count: entries wanted.
            must: the most that may have to stay beside the protected ones. Some of them may be
                protected too, so that more than `count` leaves the number open.
            visual_only: text is not ruled and stays.
        """
        ruled = self.visual if visual_only else self.entries
        if ruled is None:
            return None
        if ruled <= count:
            return self
        if must + self.protected > count:
            return None
        if visual_only:
            return replace(self, entries=self.entries - ruled + count, visual=count, alive=None)
        return replace(self, entries=count, visual=None, alive=None)
