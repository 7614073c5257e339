"""`vtc run --tokens`: an answer from tokens that `vtc compress` kept, without the picture."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from vtc_cli.commands.job import Answered, Outcome, ShowText, stream
from vtc_cli.commands.loading import AUTO, load_session, model_for
from vtc_cli.commands.output import Output
from vtc_cli.commands.run_options import RunOptions
from vtc_cli.core.discover import recipe_files
from vtc_cli.core.errors import TokenFileError, UsageError
from vtc_cli.core.files import sha256_of

if TYPE_CHECKING:
    from vtc_cli.engine.session import Session
    from vtc_cli.models.support.prompt import Prompt
    from vtc_cli.report.result import TokensFileBlock
    from vtc_cli.store.read import TokenFile


def answer_from_tokens(
    options: RunOptions, path: Path, output: Output, show_text: ShowText | None
) -> Answered:
    """Check the file, load its model, and let its tokens enter the decoder.

    With `--dtype auto` the dtype is that of the file, for no other fits.

    Raises:
        UsageError: no question, or another recipe than that of the file.
        TokenFileError: the file is broken, or it belongs to another model or recipe.
    """
    from vtc_cli.engine.decode import Generation
    from vtc_cli.models.support.load import SHIPPED
    from vtc_cli.store.read import read_tokens
    from vtc_cli.store.replay import blank_media, replay_plan

    file = read_tokens(path)
    question = _question(options, file)
    notes = [*check_recipe(file, options), *_notes(options, file)]
    media = blank_media(file)
    dtype = file.head.model.dtype if options.dtype == "auto" else options.dtype
    made = file.head.model.id
    model = made if options.model == AUTO and made in SHIPPED else model_for(options.model, ())
    session = load_session(output, model, options.device, dtype, options.attn)
    device = session.adapter.device
    plan = replay_plan(file, device)
    prompt = session.adapter.prepare(media, question)
    if plan.before_pooling:
        prompt = session.adapter.unpooled(prompt)
    check_model(file, session, prompt)
    tokens = file.entering_on(device)
    trace = session.run(
        prompt,
        plan,
        Generation(options.max_new_tokens, options.temperature, options.top_p, options.seed),
        repeats=options.repeats,
        on_token=stream(session, show_text),
        tokens=tokens,
    )
    trace.warnings.extend(notes)
    return Answered(media, question, Outcome(trace, prompt), tokens_file=_block(file))


def check_recipe(file: TokenFile, options: RunOptions) -> list[str]:
    """See that the recipe is still the one that compressed the tokens.

    Returns:
        A note if the recipe is not there any more, so that nothing could be compared.

    Raises:
        UsageError: `--recipe` names another one.
        TokenFileError: the recipe of the file has changed since.
    """
    recipe = file.head.recipe
    if "recipe" in options.given:
        from vtc_cli.recipe.load import load_recipe

        if load_recipe(options.recipe).sha256 == recipe.sha256:
            return []
        raise UsageError(
            f"{options.recipe} is not the recipe that compressed the tokens",
            where="--recipe",
            allowed=f"{recipe.name} with sha256 {recipe.sha256}",
            hint="leave out --recipe, or compress the picture again",
        )
    path = recipe_files().get(recipe.given, Path(recipe.path))
    if not os.path.isfile(path):  # unlike Path.is_file, never raises
        return [f"the recipe {recipe.path} of the tokens is not there any more"]
    if sha256_of(path) != recipe.sha256:
        raise TokenFileError(
            f"its recipe {path} has changed since",
            where=str(file.path),
            allowed=f"the recipe with sha256 {recipe.sha256}",
            hint="compress the picture again",
        )
    return []


def check_model(file: TokenFile, session: Session, prompt: Prompt) -> None:
    """See that the loaded model is the one that made the tokens.

    Raises:
        TokenFileError: another dtype, other weights, or sizes that disagree.
    """
    from vtc_cli.store.fingerprint import fingerprint

    made, decoder = file.head.model, session.adapter.shape.decoder
    if made.dtype != session.facts.dtype:
        found = f"tokens in {made.dtype} for a model in {session.facts.dtype}"
        raise _unfit(file, found, made.dtype, f"--dtype {made.dtype}")
    if made.fingerprint != fingerprint(session.adapter.model.named_parameters()):
        found = f"tokens of {made.id} ({made.family}) for {session.facts.id}, whose weights differ"
        allowed = f"weights with fingerprint {made.fingerprint}"
        raise _unfit(file, found, allowed, f"--model {made.id}")
    layout = file.entering.layout
    if layout != prompt.layout:
        raise _unfit(file, f"tokens of {layout}", f"{prompt.layout}, as the model has it")
    for table in (file.entering, file.final):
        if table.features.shape[1] != decoder.width:
            found = f"features of width {table.features.shape[1]}"
            raise _unfit(file, found, f"{decoder.width}, the width of the decoder")
    deepest = max((decision.layer for decision in file.head.decisions), default=0)
    if deepest >= decoder.layers:
        raise _unfit(file, f"a decision at layer {deepest}", f"0..{decoder.layers - 1}")


def _unfit(file: TokenFile, found: str, allowed: str, hint: str | None = None) -> TokenFileError:
    return TokenFileError(found, where=str(file.path), allowed=allowed, hint=hint)


def _question(options: RunOptions, file: TokenFile) -> str:
    question = options.question or file.head.question
    if question is None:
        raise UsageError(
            "no question: the tokens were compressed without one",
            where="QUESTION",
            allowed="some text",
            hint=f'vtc run --tokens {file.path} "what is in the picture?"',
        )
    return question


def _notes(options: RunOptions, file: TokenFile) -> list[str]:
    """Where this run differs from the one that compressed."""
    head = file.head
    notes = []
    if head.stopped_after is not None:
        notes.append(
            f"the tokens were compressed up to {head.stopped_after} only; "
            f"later stages of {head.recipe.name} do not act"
        )
    asked = options.question or head.question
    if head.text_readers and asked != head.question:
        notes.append(f'the tokens were chosen for another question, "{head.question}"')
    if options.seed != head.seed:
        notes.append(f"the tokens were compressed under seed {head.seed}, this is {options.seed}")
    return notes


def _block(file: TokenFile) -> TokensFileBlock:
    from vtc_cli.report.result import TokensFileBlock

    head, entering = file.head, file.entering
    return TokensFileBlock(
        path=str(file.path),
        sha256=file.sha256,
        created=head.created,
        entering=len(entering),
        protected=int(entering.protected.sum()),
        question=head.question,
        seed=head.seed,
        stopped_after=head.stopped_after,
    )
