"""Token files of small passes, and files that were tampered with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from vtc_cli.core.cut import Stop
from vtc_cli.core.media import Media
from vtc_cli.core.plan import Fidelity, Plan
from vtc_cli.engine.session import Session
from vtc_cli.recipe.load import load_recipe
from vtc_cli.recipe.resolve import resolve
from vtc_cli.store.fingerprint import fingerprint
from vtc_cli.store.head import AskedPart
from vtc_cli.store.read import TokenFile, read_tokens
from vtc_cli.store.write import Origin, make_head, token_bytes

Content = tuple[dict[str, Tensor], dict[str, str]]


def plan_for(
    session: Session, recipe: str, budget: float | None, fidelity: Fidelity | None = None
) -> Plan:
    return resolve(
        load_recipe(recipe),
        session.adapter.shape,
        family_signals=session.adapter.provides,
        original_tokens=576,
        budget=budget,
        fidelity=fidelity,
    )


def compressed_file(
    session: Session,
    media: Media,
    question: str,
    plan: Plan,
    path: Path,
    *,
    seed: int = 0,
    stop: Stop | None = None,
) -> Path:
    """Compress under `plan` and write the token file."""
    prompt = session.adapter.prepare(media, question)
    done = session.compress(prompt, plan, seed, stop)
    origin = Origin(
        asked=AskedPart(budget=None, fidelity=None, exact_layers=False, stage=None),
        recipe=plan.name,
        question=question,
        seed=seed,
        fingerprint=fingerprint(session.adapter.model.named_parameters()),
        created="2026-01-01T00:00:00+00:00",
    )
    head = make_head(done.trace, media, origin)
    path.write_bytes(token_bytes(head, done.trace, done.entering, done.final))
    return path


def read_back(path: Path) -> TokenFile:
    return read_tokens(path)


def content(path: Path) -> Content:
    """Tensors and metadata by the library's own reader."""
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata())  # noqa: SIM118


def tampered(
    path: Path, to: Path, change: Callable[[dict[str, Tensor], dict[str, str]], object]
) -> Path:
    """A copy of a token file after `change(tensors, metadata)`."""
    tensors, metadata = content(path)
    change(tensors, metadata)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, to, metadata)
    return to
