"""Loading a model for a command, with the libraries' own chatter off."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vtc_cli.engine.session import Session


def load_session(model: str, device: str, dtype: str, attn: str) -> Session:
    """The model and what it is.

    Raises:
        ModelError: unknown, not here, or unusable.
        UsageError: an impossible device, dtype or attention.
    """
    from huggingface_hub.utils import logging as hub_logging
    from transformers.utils import logging

    from vtc_cli.engine.session import Session
    from vtc_cli.models.support.load import LoadOptions, load_model

    hub_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    adapter, facts = load_model(model, LoadOptions(device, dtype, attn))
    return Session(adapter, facts)
