"""A decision says which incoming rows survive, in which order, and what they are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from vtc_cli.core.errors import StageError

MARKS = {"protect": torch.bool, "segment": torch.int64, "key": torch.bool}


@dataclass(frozen=True, eq=False)
class Decision:
    """What becomes of N incoming rows; encoder, prefill and decode stages all return it.

    Attributes:
        keep: (K,) int64, unique incoming rows that survive, in the order in which they will stand.
            Survivor k takes the place (and the position id) of row `keep[k]`.
        mix: sparse COO (K, N) float32; row k holds the weights of the incoming rows that make
            survivor k and sums to 1. Pure pruning has a single 1 a row; a zero column is dropped.
        protect: (K,) bool, survivors that no later stage may drop; None leaves marks as they are.
        segment: (K,) int64, the event of each survivor; None leaves events as they are.
        key: (K,) bool, survivors of a key event; None leaves marks as they are.
        features: (K, d), what an encoder stage puts in the place of the means; `mix` then says
            which rows it stands for. None takes the means.
        scores: (N,) float32, what the rows were ranked by, for reports; None if there was no rank.
        note: a few words for the report, for instance "33 windows merged".
        flops: operations of the decision itself (2 a multiply-add), without its signals.
        details: named figures for the report, for instance the published count of the paper.
    """

    keep: Tensor
    mix: Tensor
    protect: Tensor | None = None
    segment: Tensor | None = None
    key: Tensor | None = None
    features: Tensor | None = None
    scores: Tensor | None = None
    note: str = ""
    flops: int = 0
    details: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the contract; a breach is the stage's fault and says which.

        Raises:
            StageError: for repeated or foreign rows, shapes that disagree, rows not summing to 1.
        """
        tensors: dict[str, object] = {"keep": self.keep, "mix": self.mix, **self.marks()}
        for name, value in tensors.items():
            if not isinstance(value, Tensor):
                raise StageError(f"{name} is a {type(value).__name__}", allowed="a tensor")
        rows, columns = self.mix.shape
        keep = self.keep
        if keep.ndim != 1 or keep.dtype != torch.int64 or keep.shape[0] != rows:
            raise StageError(f"keep is {keep.dtype} {tuple(keep.shape)}, mix has {rows} rows")
        if rows and (int(keep.min()) < 0 or int(keep.max()) >= columns):
            raise StageError("keep names a row that did not come in", allowed=f"0..{columns - 1}")
        if torch.unique(keep).shape[0] != rows:
            raise StageError("keep names a row twice")
        for name, marks in self.marks().items():
            if marks.shape != (rows,) or marks.dtype != MARKS[name]:
                found = f"{name} is {marks.dtype} {tuple(marks.shape)}, {rows} rows survive"
                raise StageError(found, allowed=f"{MARKS[name]} ({rows},)")
        if self.features is not None and self.features.shape[0] != rows:
            raise StageError(f"{self.features.shape[0]} features, {rows} rows survive")
        sums = torch.sparse.sum(self.mix, dim=1).to_dense() if rows else torch.zeros(0)
        if not torch.allclose(sums, torch.ones_like(sums), atol=1e-4):
            raise StageError("a row of mix does not sum to 1")

    @classmethod
    def prune(cls, keep: Tensor, incoming_tokens: int, **extra: object) -> Decision:
        """Keep rows `keep` (K,) of `incoming_tokens` unchanged and drop the rest."""
        keep = keep.to(torch.int64)
        rows = torch.arange(keep.shape[0], device=keep.device)
        return cls.merge(keep, torch.stack([rows, keep]), None, incoming_tokens, **extra)

    @classmethod
    def identity(cls, incoming_tokens: int, device: torch.device, **extra: object) -> Decision:
        """Keep every row; a real decision, so that callers need no special case."""
        return cls.prune(torch.arange(incoming_tokens, device=device), incoming_tokens, **extra)

    @classmethod
    def merge(
        cls,
        keep: Tensor,
        pairs: Tensor,
        weights: Tensor | None,
        incoming_tokens: int,
        **extra: object,
    ) -> Decision:
        """Build survivors as weighted means.

        Args:
            keep: (K,) int64, the row whose place each survivor takes.
            pairs: (2, P) int64, (survivor, incoming row) of each weight.
            weights: (P,) float32, normalised here so that each survivor sums to 1; None means 1.
            incoming_tokens: N.
            extra: the optional fields of `Decision`.
        """
        count = keep.shape[0]
        if weights is None:
            weights = torch.ones(pairs.shape[1], dtype=torch.float32, device=keep.device)
        totals = torch.zeros(count, dtype=torch.float32, device=keep.device)
        totals = totals.index_add(0, pairs[0], weights.float())
        values = weights.float() / totals[pairs[0]]
        mix = torch.sparse_coo_tensor(
            pairs, values, (count, incoming_tokens), check_invariants=True
        ).coalesce()
        return cls(keep=keep.to(torch.int64), mix=mix, **extra)  # type: ignore[arg-type]

    def marks(self) -> dict[str, Tensor]:
        """The given (K,) marks of survivors by the name of their column."""
        named = {name: getattr(self, name) for name in MARKS}
        return {name: marks for name, marks in named.items() if marks is not None}

    @property
    def incoming_tokens(self) -> int:
        """N, rows before the decision."""
        return int(self.mix.shape[1])

    @property
    def kept_tokens(self) -> int:
        """K, rows after the decision."""
        return int(self.mix.shape[0])

    @property
    def is_pruning(self) -> bool:
        """Whether survivors are unchanged incoming rows (no merging)."""
        return int(self.mix.values().shape[0]) == self.kept_tokens

    @property
    def is_identity(self) -> bool:
        """Whether nothing changes: every row kept, unmixed, in its old order."""
        same = self.is_pruning and self.kept_tokens == self.incoming_tokens
        return same and bool((self.keep[1:] > self.keep[:-1]).all())

    def apply(self, rows: Tensor) -> Tensor:
        """Make the survivors from `rows` (N, ...) in the dtype of `rows`; (K, ...)."""
        if self.is_pruning:
            return rows.index_select(0, self.keep)
        flat = rows.reshape(rows.shape[0], -1).float()
        mixed: Tensor = torch.sparse.mm(self.mix, flat)
        return mixed.to(rows.dtype).reshape(self.kept_tokens, *rows.shape[1:])

    def featured(self, rows: Tensor) -> Tensor:
        """Features of the survivors of rows with the features `rows` (N, d); (K, d)."""
        return self.apply(rows) if self.features is None else self.features.to(rows.dtype)

    def shares(self) -> Tensor:
        """(P,) float32: what part of its incoming row each weight of `mix` takes up.

        1 unless survivors share a row, as the overlapping windows of an interpolation do.
        """
        column, values = self.mix.indices()[1], self.mix.values()
        totals = torch.zeros(self.incoming_tokens, dtype=values.dtype, device=values.device)
        return values / totals.index_add(0, column, values)[column]

    def used(self) -> Tensor:
        """(N,) bool: incoming rows that live on, alone or inside a mean."""
        flags = torch.zeros(self.incoming_tokens, dtype=torch.bool, device=self.keep.device)
        flags[self.mix.indices()[1]] = True
        return flags


def not_a_decision(answer: object, where: str | None = None) -> StageError:
    """The error for a stage whose `decide` returned something else."""
    found = f"decide returned {'None' if answer is None else 'a ' + type(answer).__name__}"
    allowed = "a Decision (Decision.prune, Decision.merge, Decision.identity)"
    return StageError(found, where=where, allowed=allowed)
