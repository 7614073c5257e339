"""Every check of the METok sheet, worked out by hand, and its budgets."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from math import acos, ceil

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from tests.stages.support import noise, signals
from tests.tolerance import close
from vtc_cli.core.budget import LayerBudget
from vtc_cli.core.decision import Decision
from vtc_cli.core.errors import BudgetError, SignalError, StageError
from vtc_cli.core.layout import Grid
from vtc_cli.core.stage import CacheEntries
from vtc_cli.core.tokens import TokenTable
from vtc_cli.stages.metok import EventPool, EventPrune, ShallowCache
from vtc_cli.stages.ops.events import cut_events
from vtc_cli.stages.ops.pooling import pool_frame

SHEET = (0.9, 0.2, 0.8, 0.1, 0.7)
CPU = torch.device("cpu")
LAYERS = (3, 10, 19)


def video(frames: int, side: int, features: Tensor | None = None) -> TokenTable:
    grid = Grid(frames, side, side)
    return TokenTable.from_grid(noise(grid.tokens) if features is None else features, grid)


def turning(cosines: tuple[float, ...], side: int) -> TokenTable:
    """Frames that are one vector each, turned so that neighbours have the given cosines."""
    angles = torch.tensor([0.0, *map(acos, cosines)]).cumsum(0)
    vectors = torch.stack([angles.cos(), angles.sin()], dim=1)
    return video(len(angles), side, vectors.repeat_interleave(side * side, dim=0))


def pool(tokens: TokenTable, relevance: list[float], **values: object) -> TokenTable:
    view = signals(tokens.layout, relevance=torch.tensor(relevance))
    return tokens.apply(EventPool(**values).decide(tokens, view))  # type: ignore[arg-type]


def events_of(lengths: list[int], key: list[bool]) -> TokenTable:
    """One frame an event, `lengths` tokens long."""
    count = sum(lengths)
    tokens = TokenTable.from_grid(noise(count), Grid(1, 1, count))
    segment = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    return replace(tokens, segment=segment, key=torch.tensor(key)[segment])


def lengths_of(tokens: TokenTable, events: int) -> list[int]:
    return torch.bincount(tokens.segment, minlength=events).tolist()


def descend(
    tokens: TokenTable, stage: EventPrune, budget: LayerBudget | None = None, depth: int = 28
) -> list[TokenTable]:
    """The tokens that enter and those behind each layer, under random attention."""
    generator = torch.Generator().manual_seed(len(tokens))
    tables, processed = [tokens], [len(tokens)] * stage.layers[0]
    for layer, deeper in pairwise([*stage.layers, depth]):
        attention = torch.rand(3, len(tokens), generator=generator)
        view = signals(
            tokens.layout,
            attention=attention,
            layer=layer,
            entering=len(tables[0]),
            budget=budget,
            processed=tuple(processed),
            decoder_layers=depth,
        )
        tokens = tokens.apply(stage.decide(tokens, view)) if len(tokens) else tokens
        tables.append(tokens)
        processed += [len(tokens)] * (deeper - layer)
    return tables


# events


def test_the_two_lowest_likenesses_of_the_sheet_cut_six_frames_into_three_events() -> None:
    assert cut_events(torch.tensor(SHEET), 2).tolist() == [0, 0, 1, 1, 2, 2]
    tokens = pool(turning(SHEET, 2), [0.0] * 6, cuts=2, key_strides=(1, 1), other_strides=(1, 1))
    assert tokens.segment.reshape(6, 4)[:, 0].tolist() == [0, 0, 1, 1, 2, 2]
    assert torch.equal(tokens.segment, tokens.segment.reshape(6, 4)[:, :1].expand(-1, 4).flatten())


@pytest.mark.parametrize("cuts", [0, 1, 4, 30])
def test_events_are_runs_that_cover_every_frame(cuts: int) -> None:
    event = cut_events(noise(19, 1)[:, 0], cuts)
    assert event.shape == (20,)
    steps = event[1:] - event[:-1]
    assert set(steps.tolist()) <= {0, 1}
    assert int(event[-1]) + 1 == min(cuts, 19) + 1
    assert int(torch.bincount(event).sum()) == 20


def test_no_more_frames_than_cuts_are_events_of_their_own() -> None:
    tokens = pool(video(4, 4), [0.1, 0.4, 0.3, 0.2])
    assert tokens.segment.unique().tolist() == [0, 1, 2, 3]
    assert tokens.segment[tokens.key].unique().tolist() == [1, 2, 3]
    assert lengths_of(tokens, 4) == [1, 4, 4, 4]  # one-frame events: their frame is a key frame


def test_identical_frames_are_cut_behind_the_first_ones() -> None:
    for features in (torch.ones(28, 8), torch.zeros(28, 8)):
        tokens = pool(video(7, 2, features), [0.0] * 7, cuts=2)
        assert tokens.frame[tokens.segment == 0].unique().tolist() == [0]
        assert tokens.frame[tokens.segment == 1].unique().tolist() == [1]
        assert tokens.frame[tokens.segment == 2].unique().tolist() == [2, 3, 4, 5, 6]


def test_without_relevance_the_first_events_and_frames_are_key() -> None:
    """An empty text makes every frame equally relevant."""
    tokens = pool(turning(SHEET, 4), [0.0] * 6, cuts=2, key_events=1, key_frames=1)
    assert tokens.segment[tokens.key].unique().tolist() == [0]
    assert torch.bincount(tokens.frame).tolist() == [4, 1, 1, 1, 1, 1]


# key events and key frames


def test_the_best_frame_ranks_its_event_and_each_event_has_key_frames_of_its_own() -> None:
    relevance = [0.1, 0.2, 0.9, 0.0, 0.3, 0.4]  # best of the events: 0.2, 0.9, 0.4
    tokens = pool(turning(SHEET, 8), relevance, cuts=2, key_events=2, key_frames=1)
    assert tokens.segment[tokens.key].unique().tolist() == [1, 2]
    # key event: 16 and 4; another: 4 and 1; frames 1, 2 and 5 are the best of their events
    assert torch.bincount(tokens.frame).tolist() == [1, 4, 16, 4, 4, 16]


def test_shares_in_place_of_counts_are_rounded_up() -> None:
    relevance = [0.1, 0.2, 0.9, 0.0, 0.3, 0.4]
    shares = {"key_event_ratio": 0.34, "key_frame_ratio": 0.51}
    tokens = pool(turning(SHEET, 8), relevance, cuts=2, key_events=1, key_frames=1, **shares)
    assert tokens.segment[tokens.key].unique().tolist() == [1, 2]  # ceil(0.34 x 3) = 2
    assert torch.bincount(tokens.frame).tolist() == [4, 4, 16, 16, 16, 16]  # ceil(0.51 x 2) = 2
    least = {"key_event_ratio": 0.0, "key_frame_ratio": 0.0}
    tokens = pool(turning(SHEET, 8), relevance, cuts=2, **least)
    assert torch.bincount(tokens.frame).tolist() == [1, 4, 16, 4, 1, 4]


def test_a_whole_random_video_follows_the_plain_reading_of_the_sheet() -> None:
    frames, side = 40, 9
    tokens = video(frames, side)
    relevance = noise(frames, 1, seed=5)[:, 0].tolist()
    after = pool(tokens, relevance)
    vectors = tokens.features.numpy().astype(np.float64).reshape(frames, side * side, 8).mean(1)
    alike = [float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)) for a, b in pairwise(vectors)]
    cuts = sorted(sorted(range(frames - 1), key=lambda f: alike[f])[:4])
    edges = [0, *(cut + 1 for cut in cuts), frames]
    events = [list(range(low, high)) for low, high in pairwise(edges)]
    best = sorted(range(5), key=lambda e: -max(relevance[f] for f in events[e]))[:3]
    expected: list[np.ndarray[tuple[int, ...], np.dtype[np.float32]]] = []
    for number, event in enumerate(events):
        chosen = sorted(event, key=lambda f: -relevance[f])[:6]
        for frame in event:
            fine, coarse = (2, 4) if number in best else (4, 8)
            stride = fine if frame in chosen else coarse
            picture = tokens.features.reshape(frames, side, side, 8)[frame].permute(2, 0, 1)
            expected.append(avg_pool2d(picture[None], stride)[0].flatten(1).T.numpy())
        assert len(after.features[after.segment == number]) == sum(
            len(part) for part in expected[event[0] :]
        )
    close(after.features, np.concatenate(expected), terms=64)
    assert sorted(after.segment[after.key].unique().tolist()) == sorted(best)


# pooling


@pytest.mark.parametrize(
    ("side", "mode", "counts"),
    [
        (27, "average", (169, 36, 9)),
        (27, "bilinear", (196, 49, 16)),
        (24, "average", (144, 36, 9)),
        (24, "bilinear", (144, 36, 9)),
    ],
)
def test_tokens_a_frame_are_those_of_the_sheet(
    side: int, mode: str, counts: tuple[int, ...]
) -> None:
    found = [len(pool_frame(side, side, stride, mode, CPU).anchor) for stride in (2, 4, 8)]  # type: ignore[arg-type]
    assert tuple(found) == counts


@pytest.mark.parametrize(
    ("side", "singles", "tokens"),
    [
        (27, 2, 1762),  # LLaVA-OneVision: 10 x 169 + 2 x 36
        (14, 2, 508),  # and behind its own pooling
        (24, 4, 1296),  # LLaVA-NeXT-Video: 8 x 144 + 4 x 36
        (12, 4, 324),
    ],
)
def test_a_clip_of_twelve_frames_by_hand(side: int, singles: int, tokens: int) -> None:
    """Three key events whose frames are all key, and the other frames in two other events."""
    low, lengths = 0.2, [singles // 2, singles // 2, 3, 3, 6 - singles]
    edges = set(np.cumsum(lengths)[:-1].tolist())
    alike = tuple(low if frame in edges else 0.99 for frame in range(1, 12))
    relevance = [0.0] * singles + [1.0] * (12 - singles)
    after = pool(turning(alike, side), relevance)
    assert after.segment.unique().numel() == 5
    assert len(after) == tokens


def frame_pooled(rows: Tensor, stride: int, mode: str) -> TokenTable:
    """Two frames, one event, pooled with one stride; rows (h, w, d)."""
    high, wide, width = rows.shape
    features = torch.stack([rows, rows.flip(0)]).reshape(-1, width)
    tokens = TokenTable.from_grid(features, Grid(2, high, wide))
    strides = (stride, stride)
    return pool(tokens, [0.0, 0.0], cuts=0, key_strides=strides, pooling=mode)


@pytest.mark.parametrize("stride", [1, 2, 3, 4, 8])
@pytest.mark.parametrize(("high", "wide"), [(27, 27), (14, 14), (9, 12), (8, 8)])
def test_pooling_is_the_library_s_own(high: int, wide: int, stride: int) -> None:
    rows = torch.randn(high, wide, 5, generator=torch.Generator().manual_seed(high))
    for mode in ("average", "bilinear"):
        after = frame_pooled(rows, stride, mode)
        expected = torch.cat(
            [library_pooled(rows, stride, mode), library_pooled(rows.flip(0), stride, mode)]
        )
        close(after.features, expected, terms=stride * stride)


def library_pooled(rows: Tensor, stride: int, mode: str) -> Tensor:
    """In float64: the library places float32 samples some 1e-6 beside their points."""
    picture = rows.double().permute(2, 0, 1)[None]
    size = (ceil(rows.shape[0] / stride), ceil(rows.shape[1] / stride))
    pooled = (
        avg_pool2d(picture, stride)
        if mode == "average"
        else interpolate(picture, size=size, mode="bilinear", align_corners=False)
    )
    return pooled[0].flatten(1).T.float()


@pytest.mark.parametrize("mode", ["average", "bilinear"])
@pytest.mark.parametrize("stride", [1, 2, 3, 4, 8, 40])
def test_a_constant_frame_stays_constant_and_conserves_its_tokens(mode: str, stride: int) -> None:
    after = frame_pooled(torch.full((27, 27, 3), 0.7), stride, mode)
    # Equal summands are all rounded to the same side: their errors add up as n, not as its root.
    close(after.features, torch.full_like(after.features, 0.7), terms=(27 * 27) ** 2)
    assert bool((after.anchor[1:] > after.anchor[:-1]).all())
    held = after.state() >= 0
    close(after.size.sum(), int(held.sum()), terms=len(held))
    side = len(after) // 2
    distance = after.position[:, 1:] - torch.stack(
        [(after.anchor % 729) // 27, after.anchor % 27], dim=1
    )
    assert len(after) == 2 * side and float(distance.abs().max()) <= 0.5 + 1e-5


def test_a_side_shorter_than_the_stride_is_one_window() -> None:
    rows = torch.arange(18.0).reshape(3, 6, 1)
    after = frame_pooled(rows, 4, "average")
    close(
        after.features[0, 0], rows[:, :4].mean(), terms=12
    )  # 3 x 4 of 3 x 6; the rest is left out
    assert len(after) == 2


@pytest.mark.parametrize("mode", ["average", "bilinear"])
def test_protected_tokens_outside_the_windows_stand_alone(mode: str) -> None:
    tokens = video(2, 9)
    marks = torch.zeros(162, dtype=torch.bool)
    marks[[0, 80, 161]] = True  # corners; average with stride 4 leaves out row and column 8
    tokens = replace(tokens, protected=marks)
    after = pool(tokens, [0.0, 0.0], cuts=1, key_strides=(4, 4), pooling=mode)
    assert bool((after.state()[marks] >= 0).all())
    assert bool((after.anchor[1:] > after.anchor[:-1]).all())
    alone = after.anchor.tolist().index(80)
    close(after.features[alone], tokens.features[80])
    assert int(after.segment[alone]) == 0 and bool(after.protected[alone])


def test_a_picture_is_one_key_event_that_stays_whole() -> None:
    tokens = video(1, 6)
    decision = EventPool().decide(tokens, signals(tokens.layout))  # asks for no relevance
    after = tokens.apply(decision)
    assert decision.is_identity and "not pooled" in decision.note
    assert after.segment.tolist() == [0] * 36 and bool(after.key.all())


def test_the_note_names_what_the_relevance_was_made_of() -> None:
    tokens = turning(SHEET, 2)
    view = signals(tokens.layout, relevance=torch.zeros(6))
    decision = EventPool(cuts=2).decide(tokens, view)
    assert decision.note == "24 tokens in 3 events, 3 key; relevance from a test"
    assert decision.details == {"events": 3, "key_events": 3, "key_frames": 6}


def test_a_changed_grid_and_a_lonely_stride_are_refused() -> None:
    tokens = video(2, 4)
    cut = tokens.apply(Decision.prune(torch.arange(30), 32))
    with pytest.raises(StageError, match="30 tokens of a grid of 32"):
        pool(cut, [0.0, 0.0])
    with pytest.raises(StageError, match="names 1 strides"):
        EventPool(key_strides=(2,))


@pytest.mark.parametrize("where", ["features", "relevance"])
def test_what_is_not_finite_in_a_video_is_an_error(where: str) -> None:
    tokens, relevance = video(3, 4), [0.0, 0.0, 0.0]
    if where == "features":
        tokens.features[17, 3] = float("nan")
    else:
        relevance[1] = float("inf")
    with pytest.raises(StageError, match="NaN or infinity"):
        pool(tokens, relevance)


# pruning


@pytest.mark.parametrize(
    ("length", "key", "counts"),
    [
        (100, True, [100, 76, 58, 0]),
        (49, True, [49, 38, 29, 0]),
        (1, True, [1, 1, 1, 0]),
        (100, False, [100, 38, 0, 0]),
        (1, False, [1, 1, 0, 0]),
    ],
)
def test_counts_at_the_published_share(length: int, key: bool, counts: list[int]) -> None:
    tables = descend(events_of([length], [key]), EventPrune(layers=LAYERS))
    assert [len(tokens) for tokens in tables] == counts


@pytest.mark.parametrize(
    ("share", "length", "key", "stays"),
    [
        (0.07, 100, True, 8),  # the product is a little more than 7 in floating point
        (0.14, 100, False, 8),
        (0.55, 100, True, 56),
        (0.76, 25, True, 19),
        (0.5, 100, True, 50),
    ],
)
def test_counts_are_rounded_up_as_python_rounds(
    share: float, length: int, key: bool, stays: int
) -> None:
    """The official code takes the ceiling of the product of floats as it is."""
    assert ceil(share * length / (1 if key else 2)) == stays
    tables = descend(events_of([length], [key]), EventPrune(layers=LAYERS, keep_ratio=share))
    assert len(tables[1]) == stays


def test_a_share_of_one_halves_what_is_not_key_and_nothing_else() -> None:
    tokens = events_of([40, 21], [True, False])
    tables = descend(tokens, EventPrune(layers=LAYERS, keep_ratio=1.0))
    assert [lengths_of(table, 2) for table in tables] == [[40, 21], [40, 11], [40, 0], [0, 0]]


def test_the_profile_over_layers_at_the_published_share() -> None:
    tables = descend(events_of([10_000, 10_000], [True, False]), EventPrune(layers=LAYERS))
    assert [lengths_of(table, 2) for table in tables[1:]] == [[7600, 3800], [5776, 0], [0, 0]]


def test_every_event_keeps_its_best_tokens_in_the_order_of_time() -> None:
    tokens = events_of([4, 1, 4], [True, True, False])
    rows = torch.tensor(
        [
            [0.1, 0.9, 0.2, 0.2, 0.0, 0.5, 0.1, 0.7, 0.1],
            [0.3, 0.1, 0.2, 0.4, 0.0, 0.3, 0.1, 0.1, 0.1],
        ]
    )
    # means 0.2 0.5 0.2 0.3 | 0 | 0.4 0.1 0.4 0.1: two of four and, not key, one of four
    view = signals(tokens.layout, attention=rows, layer=3)
    decision = EventPrune(layers=LAYERS, keep_ratio=0.5).decide(tokens, view)
    assert decision.keep.tolist() == [1, 3, 4, 5]
    close(decision.scores, rows.mean(0), terms=2)
    assert decision.details == {"events": 3, "key_events": 2}


def test_a_tie_goes_to_the_lowest_index() -> None:
    tokens = events_of([5], [True])
    view = signals(tokens.layout, attention=torch.ones(2, 5), layer=3)
    decision = EventPrune(layers=LAYERS, keep_ratio=0.4).decide(tokens, view)
    assert decision.keep.tolist() == [0, 1]


def test_kept_tokens_increase_and_counts_fall() -> None:
    tables = descend(events_of([30, 7, 12], [False, True, True]), EventPrune(layers=LAYERS))
    assert [len(table) for table in tables] == [49, 12 + 6 + 10, 5 + 8, 0]
    for table in tables:
        assert bool((table.anchor[1:] > table.anchor[:-1]).all())


def test_protected_tokens_outlive_every_layer() -> None:
    tokens = events_of([10, 10, 10], [True, False, False])
    marks = torch.zeros(30, dtype=torch.bool)
    marks[[9, 15, 29]] = True
    tables = descend(replace(tokens, protected=marks), EventPrune(layers=LAYERS))
    assert [lengths_of(table, 3) for table in tables[1:]] == [[8, 4, 4], [7, 1, 1], [1, 1, 1]]
    assert tables[-1].anchor.tolist() == [9, 15, 29]


def test_some_tokens_may_stay_behind_the_last_layer() -> None:
    stage = EventPrune(layers=LAYERS, last_keep=0.25)
    tables = descend(events_of([100, 100], [True, False]), stage)
    assert [lengths_of(table, 2) for table in tables[1:]] == [[76, 38], [58, 0], [15, 0]]


@pytest.mark.parametrize(
    ("layers", "counts"),
    [
        ((5,), [[0, 0]]),  # the only layer is the last
        ((3, 19), [[76, 38], [0, 0]]),
        ((3, 8, 13, 19), [[76, 38], [58, 0], [45, 0], [0, 0]]),
    ],
)
def test_other_numbers_of_layers(layers: tuple[int, ...], counts: list[list[int]]) -> None:
    tables = descend(events_of([100, 100], [True, False]), EventPrune(layers=layers))
    assert [lengths_of(table, 2) for table in tables[1:]] == counts


def test_tokens_without_an_event_are_one_key_event() -> None:
    tokens = TokenTable.from_grid(noise(100), Grid(1, 10, 10))
    assert [len(table) for table in descend(tokens, EventPrune(layers=LAYERS))] == [100, 76, 58, 0]


def test_no_attention_is_asked_for_where_nothing_is_chosen() -> None:
    tokens = events_of([5], [True])
    decision = EventPrune(layers=LAYERS).decide(tokens, signals(tokens.layout, layer=19))
    assert decision.kept_tokens == 0
    assert len(tokens.apply(decision)) == 0
    with pytest.raises(SignalError, match="attention_rows"):
        EventPrune(layers=LAYERS).decide(tokens, signals(tokens.layout, layer=3))


# budget

EVENTS = {
    "random": ([31, 7, 1, 90, 12], [True, False, True, True, False]),
    "equal": ([50] * 8, [True, True, True, False, False, True, False, True]),
    "one frame each": ([1] * 40, [True] * 25 + [False] * 15),
    "one event": ([576], [True]),
    "nothing is key": ([20, 30], [False, False]),
}
DEPTHS = {"of the paper": (28, LAYERS), "shallow": (12, (1, 4, 8)), "four": (32, (2, 7, 9, 30))}


def reach(
    lengths: list[int], key: list[bool], depth: int, layers: tuple[int, ...], last_keep: float = 0.0
) -> list[float]:
    """Layer averages at a share near 0 and of 1, by the rule as it is written on the sheet."""
    averages = []
    for share in (1e-6, 1.0):
        now, total = list(lengths), layers[0] * sum(lengths)
        for place, (layer, deeper) in enumerate(pairwise([*layers, depth])):
            last = place == len(layers) - 1
            for event, length in enumerate(now):
                stays = max(1, ceil(length * share / (1 if key[event] else 2)))
                stays = ceil(last_keep * length) if last else stays
                now[event] = 0 if place and not last and not key[event] else min(stays, length)
            total += (deeper - layer) * sum(now)
        averages.append(total / depth)
    return averages


@pytest.mark.parametrize("last_keep", [0.0, 0.3])
@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("events", EVENTS)
def test_a_budget_within_reach_is_met_within_half_a_token(
    events: str, depth: str, last_keep: float
) -> None:
    (lengths, key), (count, layers) = EVENTS[events], DEPTHS[depth]
    low, high = reach(lengths, key, count, layers, last_keep)
    stage = EventPrune(layers=layers, last_keep=last_keep)
    for part in (0.2, 0.37, 0.5, 0.81, 1.0):
        asked = low + part * (high - low)
        budget = LayerBudget(asked, count, layers)
        tables = descend(events_of(lengths, key), stage, budget, count)
        assert abs(budget.average([len(table) for table in tables]) - asked) <= 0.5, part
        for before, after in pairwise(tables):
            pairs = zip(lengths_of(before, 99), lengths_of(after, 99), strict=True)
            assert all(x <= y for y, x in pairs)


def test_a_budget_out_of_reach_names_what_can_be_met() -> None:
    lengths, key = EVENTS["random"]
    low, high = reach(lengths, key, 28, LAYERS)
    stage = EventPrune(layers=LAYERS)
    for asked in (low - 1, high + 1):
        with pytest.raises(BudgetError) as refused:
            descend(events_of(lengths, key), stage, LayerBudget(asked, 28, LAYERS))
        assert f"{low:.1f}..{high:.1f}" in str(refused.value.allowed)
        named = int(str(refused.value.hint).removeprefix("--budget "))
        budget = LayerBudget(named, 28, LAYERS)
        tables = descend(events_of(lengths, key), stage, budget)
        assert abs(budget.average([len(table) for table in tables]) - named) <= 0.5


def test_a_budget_leaves_more_of_what_is_key() -> None:
    budget = LayerBudget(60, 28, LAYERS)
    tables = descend(events_of([100, 100], [True, False]), EventPrune(layers=LAYERS), budget)
    first = lengths_of(tables[1], 2)
    assert first[0] == pytest.approx(2 * first[1], abs=2)
    assert lengths_of(tables[2], 2)[1] == 0


# cache


def test_the_cache_keeps_text_and_what_the_last_layer_had() -> None:
    visual = torch.tensor([False, True, True, True, False])
    for alive, kept in (([0, 0, 0], [0, 4]), ([0, 1, 0], [0, 2, 4])):
        entries = CacheEntries(
            layer=5,
            kv_heads=2,
            heads=(0, 1),
            index=torch.arange(5),
            visual=visual,
            anchor=torch.tensor([-1, 0, 1, 2, -1]),
            alive=torch.tensor([True, *map(bool, alive), True]),
            protected=torch.zeros(5, dtype=torch.bool),
        )
        decision = ShallowCache().decide(entries, signals(Grid(1, 1, 3)))
        assert decision.keep.tolist() == kept  # type: ignore[union-attr]


def visual_cache_share(first_layer: int, layers: int, pooled: float) -> float:
    """Visual entries while decoding over those of the full model, `pooled` = V1 / V0."""
    return first_layer * pooled / layers


def test_the_published_saving_of_the_cache_follows_from_the_layers() -> None:
    assert 100 * (1 - visual_cache_share(3, 28, 1.0)) == pytest.approx(89.3, abs=0.05)
    pooled = (1 - 0.935) * 28 / 3
    assert pooled == pytest.approx(0.61, abs=0.005)
    assert 100 * (1 - visual_cache_share(3, 28, pooled)) == pytest.approx(93.5, abs=1e-9)
