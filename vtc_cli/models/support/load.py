"""From a name to an adapter: a shipped model, `narrow:<family>`, `shape:<name>`, folder, hub id."""

from __future__ import annotations

import difflib
import inspect
import os
from dataclasses import dataclass

import torch

from vtc_cli.core.discover import assets_folder, load_module, nearest, sources
from vtc_cli.core.errors import ModelError
from vtc_cli.core.trace import ModelFacts
from vtc_cli.models.support.base import Adapter
from vtc_cli.models.support.checkpoint import (
    WHOLE,
    check_finite,
    checkpoint_errors,
    folder_or_id,
    model_type,
)
from vtc_cli.models.support.true_size import builder, read_true_size, true_sizes

TINY = "tiny"
TINY_VIDEO = "tiny-video"
SHIPPED = (TINY, TINY_VIDEO)
NARROW = "narrow:"
SHAPE = "shape:"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
ATTENTIONS = ("sdpa", "flash_attention_2", "eager")
NARROW_SEED = 0
MODELS = (
    f"{', '.join(SHIPPED)}, {NARROW}<family>, {SHAPE}<name>, a local checkpoint folder, or a hub "
    "id on a machine that can reach the hub or has it cached"
)
HUB_SECONDS = 10


@dataclass(frozen=True)
class LoadOptions:
    """How to load: each may be `auto` where the comment says so.

    Attributes:
        device: auto | cpu | cuda | cuda:1 | mps.
        dtype: auto | float32 | bfloat16 | float16; auto is float32 on a CPU and bfloat16 elsewhere.
        attention: sdpa | flash_attention_2 | eager.
    """

    device: str = "auto"
    dtype: str = "auto"
    attention: str = "sdpa"


def load_model(name: str, options: LoadOptions) -> tuple[Adapter, ModelFacts]:
    """Load the model `name`.

    Raises:
        ModelError: unknown name, unsupported architecture, broken or missing weights, a device
            that is not there.
    """
    _check_name(name)
    device, dtype = _device(options.device), _dtype(options.dtype, options.device)
    if options.attention not in ATTENTIONS:
        raise ModelError(f"no attention {options.attention}", allowed=", ".join(ATTENTIONS))
    with checkpoint_errors(name, allowed=MODELS):
        adapter, weights = _adapter(name, device, dtype, options.attention)
        adapter.model.to(device=device, dtype=dtype)
        if weights != "random":
            check_finite(adapter.model, name)
        adapter.stop_ids()
        shape = adapter.shape
    facts = ModelFacts(
        id=name,
        family=adapter.family,
        weights=weights,
        dtype=str(dtype).removeprefix("torch."),
        device=str(device),
        attention=options.attention,
        shape=shape,
    )
    return adapter, facts


def _adapter(
    name: str, device: torch.device, dtype: torch.dtype, attention: str
) -> tuple[Adapter, str]:
    """The adapter and what its weights are: trained, pretrained or random."""
    if name.startswith(SHAPE):
        size = read_true_size(name.removeprefix(SHAPE))
        build = builder(device, dtype, NARROW_SEED)
        adapter = _family(size.family).true_size(size.config, build)
        adapter.model.set_attn_implementation(attention)
        return adapter, "random"
    if name.startswith(NARROW):
        adapter = _family(name.removeprefix(NARROW)).narrow(NARROW_SEED)
        adapter.model.set_attn_implementation(attention)
        return adapter, "random"
    source = str(assets_folder() / name) if name in SHIPPED else folder_or_id(name, WHOLE)
    family = _family_of(source)
    loaded = family.load(source, dtype=dtype, attn_implementation=attention)
    return loaded, "trained" if name in SHIPPED else "pretrained"


def _check_name(name: str) -> None:
    """Refuse what can only be a misspelling, before the hub is asked for it.

    Checkpoints of the supported families have hub ids of the form owner/name, so a bare word is a
    name of ours, a folder, or wrong.

    Raises:
        ModelError: with the nearest name.
    """
    ours = name in SHIPPED or name.startswith((NARROW, SHAPE))
    if ours or (name and os.path.isdir(os.path.expanduser(name))):
        return
    if "/" in name:
        if not name.startswith((".", "/", "~")):
            _ask_hub(name)
        return
    known = {each: each for each in SHIPPED}
    for prefix, names in ((NARROW, list(sources("models"))), (SHAPE, list(true_sizes()))):
        for each in names:
            known[each] = known[prefix + each] = prefix + each
    near = nearest(name, known)
    raise ModelError(
        f"no model is called {name!r}",
        allowed=f"{', '.join(SHIPPED)}, {NARROW}<family>, {SHAPE}<name>, a local checkpoint "
        "folder, or a hub id (owner/name)",
        hint=f"--model {known[near]}" if near else None,
    )


def _ask_hub(name: str) -> None:
    """Ask the hub once; where it cannot be reached, only what is cached is looked at from here on.

    The library asks for each file of a checkpoint, and each time tries again for 24 seconds.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    if constants.HF_HUB_OFFLINE:
        return
    try:
        HfApi().model_info(name, timeout=HUB_SECONDS)
    except (HfHubHTTPError, HFValidationError):
        return  # there is an answer, and loading will say what is wrong
    except Exception:  # whatever the HTTP library of the day raises where there is no network
        constants.HF_HUB_OFFLINE = True


def family_class(name: str) -> type[Adapter]:
    """The adapter that the family file `name` defines.

    Raises:
        ModelError: the file defines no adapter of that family.
    """
    module = load_module("models", name)
    for value in vars(module).values():
        mine = inspect.isclass(value) and value.__module__ == module.__name__
        if mine and issubclass(value, Adapter) and value.family == name:
            family: type[Adapter] = value
            return family
    raise ModelError(
        "the module defines no adapter of its own name",
        where=sources("models")[name].origin,
        allowed=f"a concrete subclass of Adapter with family = {name!r}",
    )


def _family(name: str) -> type[Adapter]:
    """The adapter class of a family."""
    families = sources("models")
    if name not in families:
        near = difflib.get_close_matches(name, families, n=1)
        raise ModelError(
            f"no model family {name}",
            allowed=", ".join(sorted(families)),
            hint=f"{NARROW}{near[0] if near else sorted(families)[0]}",
        )
    return family_class(name)


def _family_of(source: str) -> type[Adapter]:
    """The adapter class for a checkpoint, by the `model_type` of its configuration."""
    kind = model_type(source)
    for name in sources("models"):
        family = family_class(name)
        if kind in family.model_types:
            return family
    supported = sorted({each for f in sources("models") for each in family_class(f).model_types})
    raise ModelError(
        f"a checkpoint of architecture {kind}",
        where=source,
        allowed=", ".join(supported),
        hint="vtc_cli/models/ holds one adapter file a family; docs/methods.md says how to add one",
    )


def _device(name: str) -> torch.device:
    """The device, checked to be there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ModelError(f"no device {name}", allowed="auto, cpu, cuda, cuda:N, mps") from error
    present = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not present.get(device.type, False):
        there = [kind for kind, here in present.items() if here]
        raise ModelError(
            f"device {name} is not on this machine", allowed=", ".join(there), hint="--device auto"
        )
    return device


def _dtype(name: str, device: str) -> torch.dtype:
    """The dtype of weights and activations."""
    if name == "auto":
        return torch.float32 if _device(device).type == "cpu" else torch.bfloat16
    if name not in DTYPES:
        raise ModelError(f"no dtype {name}", allowed=f"auto, {', '.join(DTYPES)}")
    return DTYPES[name]
