"""What the libraries raise during a pass: memory, a broken checkpoint, a fault of this project."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from vtc_cli.core.errors import MemoryExhaustedError, ModelError, VtcError
from vtc_cli.core.memory import is_out_of_memory
from vtc_cli.models.support.base import Adapter
from vtc_cli.models.support.prompt import Prompt


@contextmanager
def pass_errors(adapter: Adapter, *prompts: Prompt) -> Iterator[None]:
    """Name the cause of an error in a pass over `prompts`.

    Where the untouched model cannot read the prompt either, the checkpoint is broken; where it can,
    the error is this project's, and stays as it is.

    Raises:
        MemoryExhaustedError: the device has no memory left.
        ModelError: the checkpoint cannot be run.
    """
    try:
        yield
    except VtcError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise MemoryExhaustedError(
                (str(error) or "the device has no memory left").splitlines()[0],
                hint="a smaller --dtype, --device cpu or a smaller model",
            ) from error
        fault = next(filter(None, (_own_fault(adapter, prompt) for prompt in prompts)), None)
        if fault is None:
            raise
        lines = str(fault).splitlines() or ["no message"]
        raise ModelError(
            f"the model cannot read a prompt: {type(fault).__name__}: {lines[0]}",
            where=adapter.source,
            allowed="a config.json that belongs to the weights",
        ) from error


def _own_fault(adapter: Adapter, prompt: Prompt) -> Exception | None:
    """What the library's model raises over the prompt without any stage or hook."""
    arguments = {**prompt.encoder_inputs, **adapter.sequence_arguments(prompt.input_ids)}
    try:
        with torch.inference_mode():
            adapter.model(input_ids=prompt.input_ids, logits_to_keep=1, **arguments)
    except Exception as error:
        return error
    return None
