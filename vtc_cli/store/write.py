"""From a compressed pass to the bytes of a token file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from torch import Tensor

from vtc_cli import __version__
from vtc_cli.core.decision import Decision
from vtc_cli.core.media import Media
from vtc_cli.core.plan import Plan
from vtc_cli.core.tokens import COLUMNS, TokenTable
from vtc_cli.core.trace import StageRecord, Trace
from vtc_cli.store.head import (
    AskedPart,
    BudgetPart,
    DecisionPart,
    GridPart,
    Head,
    InputPart,
    ModelPart,
    RecipePart,
    StagePart,
)

ADDED = "added."  # and the number of the decoder layer
ENTERING = "entering."


@dataclass(frozen=True)
class Origin:
    """What a trace does not know about the pass that it describes.

    Attributes:
        asked: what the command line asked of the recipe.
        recipe: the recipe as the command line named it.
        question: the question, None if none was asked.
        seed: of random stages.
        fingerprint: of the weights.
        created: time, ISO 8601.
        stopped_after: stage behind which the recipe was left.
    """

    asked: AskedPart
    recipe: str
    question: str | None
    seed: int
    fingerprint: str
    created: str
    stopped_after: str | None = None


def make_head(trace: Trace, media: Media, origin: Origin) -> Head:
    """The head of a token file for the pass of `trace` over `media`."""
    plan, facts = trace.plan, trace.model
    names = ("id", "family", "weights", "dtype", "device", "attention")
    model = {name: getattr(facts, name) for name in names}
    known = ("path", "kind", "sha256", "width", "height", "timestamps")
    return Head(
        vtc=__version__,
        created=origin.created,
        model=ModelPart(**model, fingerprint=origin.fingerprint),
        asked=origin.asked,
        recipe=_recipe(plan, origin.recipe),
        stages=tuple(StagePart(**planned.plain()) for planned in plan.stages),
        decisions=tuple(_decisions(trace)),
        grids=tuple(GridPart(**asdict(grid)) for grid in trace.layout.grids),
        input=InputPart(
            **{name: getattr(media, name) for name in known}, frames=int(media.frames.shape[0])
        ),
        question=origin.question,
        text_readers=plan.text_readers,
        seed=origin.seed,
        stopped_after=origin.stopped_after,
        warnings=tuple(dict.fromkeys((*media.warnings, *trace.warnings))),
    )


def token_bytes(head: Head, trace: Trace, entering: TokenTable, final: TokenTable) -> bytes:
    """A safetensors file of the tokens and of the decisions of the prefill.

    Args:
        head: becomes the metadata.
        trace: the decisions.
        entering: tokens at the door of the decoder.
        final: tokens behind the last stage; the same where no stage acts in the decoder.
    """
    from safetensors.torch import save

    tensors = columns(final)
    decided = _prefill_records(trace)
    if decided:
        tensors |= columns(entering, ENTERING)
    for number, record in enumerate(decided):
        tensors |= _decision_tensors(record.decision, f"decision.{number}.")
    # A copy of each: the library refuses tensors that share memory, as tables do.
    owned = {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}
    return bytes(save(owned, head.metadata()))


def columns(table: TokenTable, prefix: str = "") -> dict[str, Tensor]:
    """Every column of a table by its name in the file."""
    found: dict[str, Tensor] = {prefix + name: getattr(table, name) for name in COLUMNS}
    found |= {f"{prefix}{ADDED}{layer}": rows for layer, rows in enumerate(table.added)}
    origin = table.origin.coalesce()
    found[f"{prefix}origin.indices"] = origin.indices()
    found[f"{prefix}origin.values"] = origin.values()
    return {name: tensor.contiguous() for name, tensor in found.items()}


def _recipe(plan: Plan, given: str) -> RecipePart:
    return RecipePart(
        name=plan.name,
        given=given,
        path=os.path.abspath(plan.path),
        sha256=plan.sha256,
        fidelity=plan.fidelity,
        positions=plan.positions,
        requested=plan.requested,
        budget=None if plan.budget is None else BudgetPart(**asdict(plan.budget)),
    )


def _prefill_records(trace: Trace) -> Sequence[StageRecord]:
    return [record for record in trace.records if record.phase == "prefill"]


def _decisions(trace: Trace) -> list[DecisionPart]:
    """Each decision of the prefill with the number of its stage in the plan.

    A recipe may use a stage twice at one layer: at a layer stages act in the order of the plan.
    """
    prefill, first = trace.plan.prefill, len(trace.plan.encoder)
    found: list[DecisionPart] = []
    layer, place = -1, -1
    for record in _prefill_records(trace):
        place = place + 1 if record.layer == layer else 0
        layer = record.layer
        while prefill[place].name != record.stage or layer not in prefill[place].stage.layers:
            place += 1
        part = DecisionPart(
            stage=record.stage, place=first + place, layer=layer, note=record.decision.note
        )
        found.append(part)
    return found


def _decision_tensors(decision: Decision, prefix: str) -> dict[str, Tensor]:
    tensors = {
        f"{prefix}keep": decision.keep,
        f"{prefix}mix.indices": decision.mix.indices(),
        f"{prefix}mix.values": decision.mix.values(),
    }
    tensors |= {prefix + name: marks for name, marks in decision.marks().items()}
    return {name: tensor.contiguous() for name, tensor in tensors.items()}
