"""The story of a patch told anew from dense matrices, to compare the page with.

Nothing here reads `holder` or `anchor` of the records: the weights of the original tokens are
multiplied through the decisions, as the definition of a decision says.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vtc_cli.core.trace import StageRecord, Trace


@dataclass(frozen=True)
class State:
    """Tokens after one step: weights (K, N0), anchor and protection of each."""

    weights: Tensor
    anchors: list[int]
    protected: list[bool]

    def row(self, patch: int) -> int | None:
        column = self.weights[:, patch]
        return int(column.argmax()) if bool((column > 0).any()) else None

    def members(self, patch: int) -> list[int]:
        row = self.row(patch)
        return [] if row is None else (self.weights[row] > 0).nonzero()[:, 0].tolist()


class Retold:
    """States after each step and the words that the page should find for them."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.records = [record for record in trace.records if record.phase != "decode"]
        count = trace.original_tokens
        self.states = [State(torch.eye(count), list(range(count)), [False] * count)]
        for record in self.records:
            self.states.append(_after(self.states[-1], record))

    def dropped_at(self, patch: int) -> int | None:
        gone = [at for at, state in enumerate(self.states) if state.row(patch) is None]
        return gone[0] if gone else None

    def deed(self, patch: int, step: int) -> str:
        """What step `step` (from 1) did."""
        before, after = self.states[step - 1], self.states[step]
        row = after.row(patch)
        own, together = before.members(patch), after.members(patch)
        if not own:
            return "no longer there"
        if row is None:
            return "dropped" + _company(own)
        marked = ""
        if after.protected[row]:
            old = before.row(patch)
            assert old is not None
            marked = ", still protected" if before.protected[old] else ", protected"
        if len(together) == len(own):
            return "kept" + _company(together) + marked
        who = "merged" if len(own) == 1 else f"its token of {len(own)} patches merged"
        new = len(together) - len(own)
        patches = "1 patch" if new == 1 else f"{new} patches"
        return f"{who} with {patches} into token {after.anchors[row]}{marked}"

    def partners(self, patch: int, step: int) -> set[int]:
        """Patches that share its token since this step."""
        own = set(self.states[step - 1].members(patch))
        return set(self.states[step].members(patch)) - own

    def rank(self, patch: int, step: int) -> tuple[float, int, int] | None:
        """Score, rank among the tokens that came in, and how many those were."""
        scores = self.records[step - 1].decision.scores
        row = self.states[step - 1].row(patch)
        if scores is None or row is None:
            return None
        values = scores.tolist()
        better = sum(value > values[row] for value in values)
        return values[row], better + 1, len(values)

    def at_layer(self, layer: int) -> State:
        """Tokens that decoder layer `layer` processed."""
        acted = [r for r in self.records if r.phase == "encoder" or r.layer <= layer]
        return self.states[len(acted)]

    def seen(self, patch: int) -> list[str]:
        layers = range(self.trace.model.shape.decoder.layers)
        counts = [len(self.at_layer(layer).members(patch)) for layer in layers]
        return ["gone" if not n else "own" if n == 1 else "merged" for n in counts]

    def cached(self, patch: int) -> list[str]:
        held = {}
        for record in self.trace.records:
            if record.phase == "decode":
                held[record.layer] = set(record.anchor.tolist())
        states = []
        for layer, seen in enumerate(self.seen(patch)):
            state = self.at_layer(layer)
            row = state.row(patch)
            if row is None:
                states.append("never")
            else:
                there = layer not in held or state.anchors[row] in held[layer]
                states.append(seen if there else "evicted")
        return states


def _after(before: State, record: StageRecord) -> State:
    decision = record.decision
    mix = decision.mix.to_dense()
    old = torch.tensor(before.protected, dtype=torch.float32)
    protected = (mix > 0).float() @ old > 0
    if decision.protect is not None:
        protected |= decision.protect
    anchors = [before.anchors[row] for row in decision.keep.tolist()]
    return State(mix @ before.weights, anchors, protected.tolist())


def _company(patches: list[int]) -> str:
    return f" in a token of {len(patches)} patches" if len(patches) > 1 else ""
