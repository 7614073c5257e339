"""The table of visual tokens: one row a token, every column moved together by a decision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vtc_cli.core.decision import Decision
from vtc_cli.core.errors import StageError
from vtc_cli.core.layout import Grid, Layout
from vtc_cli.core.sparse import compose

# Columns of one value a row; `origin` and `added` are not among them.
COLUMNS = ("features", "position", "size", "protected", "anchor", "span", "frame", "segment", "key")


@dataclass(frozen=True, eq=False)
class TokenTable:
    """Visual tokens at one point of the way; rows may stand in any order, `position` is truth.

    Attributes:
        features: (N, d) hidden states or features of the tokens, model dtype.
        position: (N, 3) float32, t, y, x of the centre in the raster of the token's view.
        span: (N,) int64, which image or video of the prompt.
        frame: (N,) int64, frame number inside the span.
        segment: (N,) int64, event id, -1 if none.
        key: (N,) bool, rows of a key event, which stages may treat better than others.
        size: (N,) float32, how many original tokens the row stands for.
        protected: (N,) bool, rows that no stage may drop.
        anchor: (N,) int64, the original token whose place (and position id) the row takes.
        origin: sparse COO (N, N0) float32, weights of the original tokens in each row.
        layout: geometry of the N0 original tokens.
        added: for each of the first decoder layers, rows (N, d) that are added to what the layer
            gives out; empty for a model whose tower speaks only at the decoder's door.
    """

    features: Tensor
    position: Tensor
    span: Tensor
    frame: Tensor
    segment: Tensor
    key: Tensor
    size: Tensor
    protected: Tensor
    anchor: Tensor
    origin: Tensor
    layout: Layout
    added: tuple[Tensor, ...] = ()

    @classmethod
    def from_grid(cls, features: Tensor, grid: Grid) -> TokenTable:
        """A fresh table over one grid; features (N0, d)."""
        return cls.from_layout(features, Layout.of(grid))

    @classmethod
    def from_layout(cls, features: Tensor, layout: Layout) -> TokenTable:
        """A fresh table of `layout.tokens` unmerged rows; features (N0, d).

        Learned tokens such as line ends are protected: no patch could be put in their place.
        """
        count, device = layout.tokens, features.device
        if features.shape[0] != count:
            raise StageError(f"{features.shape[0]} features for a layout of {count} tokens")
        columns = layout.columns(device)
        index, weights = torch.arange(count, device=device), torch.ones(count, device=device)
        return cls(
            features=features,
            position=columns.position,
            span=columns.span,
            frame=columns.frame,
            segment=torch.full_like(index, -1),
            key=torch.zeros(count, dtype=torch.bool, device=device),
            size=weights,
            protected=columns.learned,
            anchor=index,
            origin=torch.sparse_coo_tensor(
                torch.stack([index, index]), weights, (count, count), check_invariants=True
            ).coalesce(),
            layout=layout,
        )

    def __len__(self) -> int:
        """N, rows now."""
        return int(self.anchor.shape[0])

    @property
    def original_tokens(self) -> int:
        """N0, tokens before any compression."""
        return int(self.origin.shape[1])

    def with_features(self, features: Tensor) -> TokenTable:
        """The same tokens seen at another layer; features (N, d')."""
        if features.shape[0] != len(self):
            raise StageError(f"{features.shape[0]} features for {len(self)} tokens")
        return replace(self, features=features)

    def part(self, span: int) -> TokenTable:
        """The rows of one span, in their order, as a table of its own."""
        rows = (self.span == span).nonzero()[:, 0]
        first = sum(self.layout.tokens_of(before) for before in range(span))
        layout = self.layout.part(span)
        place = torch.full_like(self.span, -1)
        place[rows] = torch.arange(rows.shape[0], device=rows.device)
        (row, column), values = self.origin.indices(), self.origin.values()
        mine = place[row] >= 0  # rows of two spans are never mixed, so their origins lie inside
        origin = torch.sparse_coo_tensor(
            torch.stack([place[row[mine]], column[mine] - first]),
            values[mine],
            (rows.shape[0], layout.tokens),
            check_invariants=True,
        ).coalesce()
        taken = {name: getattr(self, name)[rows] for name in COLUMNS}
        return TokenTable(
            **taken | {"span": torch.zeros_like(rows), "anchor": self.anchor[rows] - first},
            origin=origin,
            layout=layout,
            added=tuple(layer[rows] for layer in self.added),
        )

    @classmethod
    def joined(cls, parts: Sequence[TokenTable], layout: Layout) -> TokenTable:
        """Tables of the spans of `layout`, one behind the other."""
        first, rows = 0, 0
        shifted, indices, values = [], [], []
        for span, part in enumerate(parts):
            shifted.append(
                {name: getattr(part, name) for name in COLUMNS}
                | {"span": torch.full_like(part.span, span), "anchor": part.anchor + first}
            )
            shift = torch.tensor([[rows], [first]], device=part.span.device)
            indices.append(part.origin.indices() + shift)
            values.append(part.origin.values())
            first, rows = first + part.layout.tokens, rows + len(part)
        return cls(
            **{name: torch.cat([columns[name] for columns in shifted]) for name in COLUMNS},
            origin=torch.sparse_coo_tensor(
                torch.cat(indices, dim=1), torch.cat(values), (rows, first), check_invariants=True
            ).coalesce(),
            layout=layout,
            added=tuple(
                torch.cat(layers) for layers in zip(*(p.added for p in parts), strict=True)
            ),
        )

    def apply(self, decision: Decision) -> TokenTable:
        """Update every column at once.

        Raises:
            StageError: if the decision is for another number of rows or drops a protected row.
        """
        if decision.incoming_tokens != len(self):
            raise StageError(f"decision over {decision.incoming_tokens} of {len(self)} rows")
        if bool((self.protected & ~decision.used()).any()):
            raise StageError("the decision drops protected tokens")
        keep, pairs = decision.keep, decision.mix.indices()
        sizes = torch.zeros(decision.kept_tokens, device=self.size.device)
        sizes = sizes.index_add(0, pairs[0], self.size[pairs[1]] * decision.shares())
        protected = torch.zeros(decision.kept_tokens, device=self.size.device)
        protected = protected.index_add(0, pairs[0], self.protected[pairs[1]].float()) > 0
        if decision.protect is not None:
            protected = protected | decision.protect
        return replace(
            self,
            features=decision.featured(self.features),
            position=decision.apply(self.position),
            span=self.span[keep],
            frame=self.frame[keep],
            segment=self.segment[keep] if decision.segment is None else decision.segment,
            key=self.key[keep] if decision.key is None else decision.key,
            size=sizes,
            protected=protected,
            anchor=self.anchor[keep],
            origin=compose(decision.mix, self.origin),
            added=tuple(decision.apply(rows) for rows in self.added),
        )

    def state(self) -> Tensor:
        """(N0,) int64: row that holds each original token (the largest share), -1 if dropped."""
        holder = torch.full((self.original_tokens,), -1, dtype=torch.int64)
        indices, values = self.origin.indices().cpu(), self.origin.values().cpu()
        order = torch.argsort(values, stable=True)  # the largest share is written last
        holder[indices[1][order]] = indices[0][order]
        return holder
