"""One picture or video compressed into its files; what one and a folder of them share."""

from __future__ import annotations

import io
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from vtc_cli.commands.compress_options import output_files
from vtc_cli.commands.job import PlanOptions, make_plan
from vtc_cli.commands.relevance import scored
from vtc_cli.core.errors import TokenFileError, UsageError
from vtc_cli.core.files import write_all

if TYPE_CHECKING:
    from vtc_cli.core.cut import Stop
    from vtc_cli.core.media import Media
    from vtc_cli.core.plan import Plan
    from vtc_cli.engine.session import Compressed, Session
    from vtc_cli.models.support.prompt import Prompt
    from vtc_cli.models.support.relevance import Pair
    from vtc_cli.recipe.load import Recipe
    from vtc_cli.report.compressed import CompressedReport
    from vtc_cli.store.head import AskedPart
    from vtc_cli.store.write import Origin

# Stands in the prompt where no stage reads the question; what it says changes no decision.
NEUTRAL_QUESTION = "what is in the picture?"


@dataclass(frozen=True)
class Wish:
    """What is asked of every picture.

    Attributes:
        recipe: the recipe.
        given: the recipe as the command line names it.
        plan: budget, fidelity and layers.
        stage: stop after this stage, None for the whole recipe.
        question: None if none is asked.
        seed: of random stages.
        relevance: the pair that scores frames, None for the model's own features.
    """

    recipe: Recipe
    given: str
    plan: PlanOptions
    stage: str | None
    question: str | None
    seed: int
    relevance: str | None = None

    @property
    def asked(self) -> AskedPart:
        """The same as the head of a token file holds it."""
        from vtc_cli.store.head import AskedPart

        plan = self.plan
        budget = plan.budget
        if isinstance(budget, tuple):
            raise UsageError(f"--budget with {len(budget)} numbers", allowed="one for one picture")
        return AskedPart(
            budget=budget,
            fidelity=plan.fidelity,
            exact_layers=plan.exact_layers,
            stage=self.stage,
            relevance=self.relevance,
        )


@dataclass(frozen=True)
class Compressor:
    """A loaded model that compresses one picture after the other."""

    session: Session
    wish: Wish
    pair: Pair | None = None

    @cached_property
    def fingerprint(self) -> str:
        """Of the weights, read once."""
        from vtc_cli.store.fingerprint import fingerprint

        return fingerprint(self.session.adapter.model.named_parameters())

    def is_done(self, stem: Path, sha256: str) -> bool:
        """Whether the files of the picture with hash `sha256` are there, whole and as wished."""
        from vtc_cli import __version__
        from vtc_cli.store.read import read_tokens

        tokens, *others = output_files(stem)
        if not all(path.is_file() for path in (tokens, *others)):
            return False
        try:
            found = read_tokens(tokens).head.identity
        except TokenFileError:
            return False
        wish = self.wish
        parts = (wish.recipe.sha256, sha256, self.fingerprint)
        return found == (__version__, *parts, wish.asked, wish.question, wish.seed)

    def compress(self, media: Media, stem: Path) -> CompressedReport:
        """Compress one picture or video and write its files.

        Raises:
            UsageError: a question or a stage is missing.
            VtcError: the recipe does not fit, or the files cannot be written.
        """
        from vtc_cli.engine.inputs import note_input, shrink
        from vtc_cli.report.padding import padding_warnings
        from vtc_cli.store.write import make_head, token_bytes

        wish = self.wish
        plain = self.session.adapter.prepare(media, wish.question or NEUTRAL_QUESTION)
        plan, stopped_after, stop = self._plan(plain)
        smaller, changes = shrink(self.session.adapter, (media,), plain, plan)
        prompt = scored(smaller, self.pair, media)
        done = self.session.compress(prompt, plan, wish.seed, stop)
        note_input(done.trace, plain, changes)
        done.trace.warnings.extend(padding_warnings(done.trace, (media,), prompt.patch_boxes))
        origin = self._origin(stopped_after)
        tokens, decisions, overlay = output_files(stem)
        report = self._report(done, media, origin, stem)
        head = make_head(done.trace, media, origin)
        files = {
            overlay: _overlay(done, media, prompt),
            decisions: (report.model_dump_json(indent=2) + "\n").encode(),
            tokens: token_bytes(head, done.trace, done.entering, done.final),
        }
        write_all(files)
        return report

    def _plan(self, prompt: Prompt) -> tuple[Plan, str | None, Stop | None]:
        """The plan up to the wished stage, which of its stages that is, and where it ends."""
        from vtc_cli.core.cut import cut_after

        plan = make_plan(self.session, prompt, self.wish.recipe, self.wish.plan)
        full, stop = None, None
        if self.wish.stage is not None:
            plan, full, stop = cut_after(plan, self.wish.stage)
        if self.wish.question is None and plan.text_readers:
            raise UsageError(
                f"no question; it is read by {', '.join(plan.text_readers)}",
                where="--question",
                allowed="a question, or stages that read none",
                hint='--question "what is in the picture?", or --stage to stop before',
            )
        return plan, full, stop

    def _origin(self, stopped_after: str | None) -> Origin:
        from vtc_cli.store.write import Origin

        wish = self.wish
        return Origin(
            asked=wish.asked,
            recipe=wish.given,
            question=wish.question,
            seed=wish.seed,
            fingerprint=self.fingerprint,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            stopped_after=stopped_after,
        )

    def _report(
        self, done: Compressed, media: Media, origin: Origin, stem: Path
    ) -> CompressedReport:
        from vtc_cli.report.compressed import FilesBlock, build_compressed

        tokens, decisions, overlay = (path.name for path in output_files(stem))
        return build_compressed(
            done.trace,
            media,
            question=origin.question,
            argv=sys.argv[1:],
            seed=origin.seed,
            created=origin.created,
            fingerprint=origin.fingerprint,
            stopped_after=origin.stopped_after,
            files=FilesBlock(tokens=tokens, decisions=decisions, overlay=overlay),
        )


def _overlay(done: Compressed, media: Media, prompt: Prompt) -> bytes:
    """The picture of kept and dropped patches as a PNG file."""
    from vtc_cli.report.strips import draw_media

    buffer = io.BytesIO()
    draw_media(done.trace, media, prompt.patch_boxes).save(buffer, "PNG")
    return buffer.getvalue()
