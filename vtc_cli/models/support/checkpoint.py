"""The one place that reads checkpoints: no code of theirs runs, and their weights are whole.

A checkpoint is data from a stranger. The library would run Python files that lie in it, fill
missing weights with random ones, and allocate whatever the configuration asks for.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import nn

from vtc_cli.core.errors import MemoryExhaustedError, ModelError, VtcError
from vtc_cli.core.files import check_regular
from vtc_cli.core.memory import is_out_of_memory

CONFIG = "configuration (config.json)"
MODEL = "model (config.json, generation_config.json, *.safetensors)"
WHOLE = "config.json, *.safetensors and the files of tokenizer and image processor"
# What a configuration may say of code, other files or patches of the library: not followed.
NOT_FOLLOWED = ("auto_map", "fusion_config", "transformers_weights")
DEPTHS = ("num_hidden_layers", "num_layers", "depth", "n_layer", "n_layers")
INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
NAMED = 3  # tensors that an error names
LARGER = 2  # a model of more times the stored numbers is not made


def folder_or_id(name: str, allowed: str) -> str:
    """The folder that the library is to load, or `name` where it can only be a hub id.

    Raises:
        ModelError: a path without a checkpoint.
    """
    folder = Path(name).expanduser()
    if (folder / "config.json").is_file():
        try:
            check_regular(folder)  # the library opens whatever lies there
        except OSError as error:
            found = f"cannot be read: {error.strerror}"
            raise ModelError(found, where=str(error.filename or folder), allowed=allowed) from error
        return str(folder)
    if folder.exists() or name.startswith((".", "/", "~")):
        kinds = {folder.is_dir(): "a folder without config.json", folder.is_file(): "a file"}
        raise ModelError(kinds.get(True, "no such folder"), where=str(folder), allowed=allowed)
    return name


def pretrained(kind: Any, source: str, **options: Any) -> Any:
    """What `kind` of the library makes of a folder or hub id, never with code that lies in it."""
    return kind.from_pretrained(source, trust_remote_code=False, **options)


def raw_config(source: str) -> dict[str, Any]:
    """config.json of a folder or hub id.

    Raises:
        ModelError: it is no object.
    """
    from transformers import PreTrainedConfig

    found: Any = PreTrainedConfig.get_config_dict(source)[0]
    return _object(found, f"{source}/config.json")


def json_object(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object.

    Raises:
        ModelError: it holds something else.
    """
    with checkpoint_errors(str(path), path.name):
        found = json.loads(path.read_text(encoding="utf-8"))
    return _object(found, str(path))


def config_file(source: str, name: str) -> Path | None:
    """The file `name` of a folder or hub id, None if it has none."""
    from transformers.utils.hub import cached_file

    quiet = {
        "_raise_exceptions_for_missing_entries": False,
        "_raise_exceptions_for_connection_errors": False,
    }
    found = cached_file(source, name, **quiet)
    return None if found is None else Path(found)


def model_type(source: str) -> str:
    """`model_type` in config.json.

    Raises:
        ModelError: it is no name.
    """
    found = raw_config(source).get("model_type")
    if not isinstance(found, str):
        raise ModelError(
            f"config.json with model_type {found!r}", where=source, allowed="a name such as llava"
        )
    return found


def read_config(kind: Any, source: str) -> Any:
    """The configuration of a model of class `kind`.

    Raises:
        ModelError: it describes another depth than the weights have.
    """
    _check_depth(raw_config(source), len(stored_sizes(source)), source)
    with checkpoint_errors(source, CONFIG):
        config = pretrained(kind.config_class, source)
    # A name with a slash would be downloaded and run as a kernel; it holds for the inner ones too.
    config._attn_implementation = config._experts_implementation = None
    for part in [config, *(getattr(config, name, None) for name in config.sub_configs)]:
        for name in NOT_FOLLOWED:
            vars(part).pop(name, None) if part is not None else None
    return config


def load_weights(kind: Any, source: str, config: Any, **options: Any) -> Any:
    """A model of class `kind` with every one of its weights, and nothing else, from the checkpoint.

    Raises:
        ModelError: weights are missing, of another shape, or belong to no part of the model.
    """
    with checkpoint_errors(source, CONFIG):
        _check_amount(kind, config, source)
    generation = config_file(source, "generation_config.json")
    if generation is not None:
        json_object(generation)  # the library takes a file that it cannot read for none
    with checkpoint_errors(source, MODEL):
        model, told = pretrained(
            kind,
            source,
            config=config,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **options,
        )
    _check_names(told, source)
    return model.eval()


def check_finite(model: nn.Module, source: str) -> None:
    """See that no weight and no buffer is NaN or infinite, with one transfer from the device.

    Raises:
        ModelError: names those that are.
    """
    named = [*model.named_parameters(), *model.named_buffers()]
    floating = [(name, each) for name, each in named if each.is_floating_point() and each.numel()]
    with torch.inference_mode():
        # Smallest and largest number: both propagate NaN and, unlike isfinite, need no memory.
        ends = [torch.stack(torch.aminmax(each.detach())).float() for _, each in floating]
        sound = torch.stack(ends).isfinite().all(dim=1).tolist()
    broken = [name for (name, _), fine in zip(floating, sound, strict=True) if not fine]
    if broken:
        raise ModelError(
            f"weights that are NaN or infinite: {_listed(broken)}",
            where=source,
            allowed="finite numbers",
            hint="--dtype float32, if the checkpoint is sound and float16 too narrow for it",
        )


def stored_sizes(source: str) -> dict[str, int]:
    """How many numbers each tensor of the *.safetensors has, from their headers alone."""
    from safetensors import safe_open
    from transformers.utils.hub import cached_file, get_checkpoint_shard_files

    quiet = {"_raise_exceptions_for_missing_entries": False}
    files = [cached_file(source, SINGLE, **quiet)]
    if files[0] is None:
        index = cached_file(source, INDEX, **quiet)
        if index is None:
            raise ModelError(f"neither {SINGLE} nor {INDEX}", where=source, allowed=WHOLE)
        files = get_checkpoint_shard_files(source, index)[0]
    sizes: dict[str, int] = {}
    for path in files:
        with safe_open(path, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - no mapping
                sizes[name] = torch.Size(opened.get_slice(name).get_shape()).numel()
    return sizes


@contextmanager
def checkpoint_errors(where: str, part: str = "", allowed: str = WHOLE) -> Iterator[None]:
    """Turn whatever the libraries raise over a checkpoint into one error.

    What the code of this project raises itself passes: a fault of its own must not look like one of
    the checkpoint.

    Args:
        where: the checkpoint.
        part: what was being read or used, with the names of its files.
        allowed: what would have been accepted.

    Raises:
        ModelError: the checkpoint is broken.
        MemoryExhaustedError: there was no memory for it.
    """
    try:
        yield
    except VtcError:
        raise
    except BaseException as error:  # the tokenizers' panics are no Exception
        panic = type(error).__module__ == "pyo3_runtime"
        if is_out_of_memory(error):
            raise MemoryExhaustedError(
                _first_line(error), where=where, hint="a smaller --dtype or model"
            ) from error
        if not panic and (not isinstance(error, Exception) or _is_own(error)):
            raise
        found = f"{type(error).__name__}: {_first_line(error)}"
        raise ModelError(
            f"no usable {part}: {found}" if part else found, where=where, allowed=allowed
        ) from error


def _is_own(error: BaseException) -> bool:
    """Whether this project's code raised it, and not a library that was called."""
    last: TracebackType | None = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    module = "" if last is None else str(last.tb_frame.f_globals.get("__name__"))
    # Extension modules have no frame: the error stands in the line that called them.
    return module.startswith("vtc_") and type(error).__module__ == "builtins"


def _first_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else "no message"


def _object(found: Any, where: str) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise ModelError(f"JSON of type {type(found).__name__}", where=where, allowed="an object")
    return found


def _check_depth(raw: Mapping[str, Any], tensors: int, source: str) -> None:
    """Refuse more layers than tensors: the library makes lists and modules of that length."""
    for name, value in raw.items():
        if isinstance(value, dict):
            _check_depth(value, tensors, source)
        elif name in DEPTHS and isinstance(value, (int, float)) and value > tensors:
            raise ModelError(
                f"config.json asks for {value} layers, the weights have {tensors} tensors",
                where=source,
                allowed="weights that belong to the configuration",
            )


def _check_amount(kind: Any, config: Any, source: str) -> None:
    """Refuse a model far larger than what is stored before memory is asked for."""
    if getattr(config, "quantization_config", None) is not None:
        return  # packed weights count less
    with torch.device("meta"):
        asked = sum(each.numel() for each in kind(config).parameters())
    stored = sum(stored_sizes(source).values())
    if asked > LARGER * stored:
        raise ModelError(
            f"config.json describes {asked:,} weights, *.safetensors hold {stored:,}",
            where=source,
            allowed="weights that belong to the configuration",
        )


def _check_names(told: Mapping[str, Any], source: str) -> None:
    """Compare weights in files and model; the library leaves out ties and buffers it can make."""
    mismatched = [key for key, *_ in told["mismatched_keys"]]
    faults = {
        "missing": told["missing_keys"],
        "of another shape than config.json says": mismatched,
        "that no part of the model takes": told["unexpected_keys"],
    }
    found = [f"{len(keys)} {how} ({_listed(keys)})" for how, keys in faults.items() if keys]
    found += [str(message) for message in told.get("error_msgs") or ()][:1]
    if found:
        raise ModelError(
            f"weights: {'; '.join(found)}",
            where=source,
            allowed="every weight of the model and no other",
            hint="the whole checkpoint, with the config.json that belongs to it",
        )


def _listed(names: Iterable[Any]) -> str:
    """The first few of `names`."""
    ordered = sorted(map(str, names))
    more = len(ordered) - NAMED
    return ", ".join(ordered[:NAMED]) + (f" and {more} more" if more > 0 else "")
