"""A session: one loaded model that answers questions under plans and leaves traces."""

from __future__ import annotations

import platform
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from vtc_cli import __version__
from vtc_cli.core.cut import Stop
from vtc_cli.core.observe import Observer
from vtc_cli.core.plan import Plan
from vtc_cli.core.tokens import TokenTable
from vtc_cli.core.trace import Given, ModelFacts, Timings, Trace
from vtc_cli.engine.batch_decode import decode_together, entries_after
from vtc_cli.engine.cache import logical_cache
from vtc_cli.engine.clock import PeakMemory, Stopwatch
from vtc_cli.engine.context import check_entry, check_prompt
from vtc_cli.engine.decode import Decoded, Decoder, Generation
from vtc_cli.engine.encode import Encoded, encode
from vtc_cli.engine.evict import Evictor
from vtc_cli.engine.faults import pass_errors
from vtc_cli.engine.prefill import prefill, prefill_until_decided
from vtc_cli.engine.reading import OnToken, PromptRead, Request, random_state
from vtc_cli.engine.sequence import Sequence, enter
from vtc_cli.engine.step import Scene
from vtc_cli.engine.turns import further_turns
from vtc_cli.models.support.base import Adapter
from vtc_cli.models.support.prompt import Prompt


@dataclass(frozen=True)
class Session:
    """A loaded model and what it is."""

    adapter: Adapter
    facts: ModelFacts

    def run(
        self,
        prompt: Prompt,
        plan: Plan,
        generation: Generation,
        *,
        repeats: int = 1,
        on_token: OnToken | None = None,
        capture: bool = False,
        observer: Observer | None = None,
        tokens: TokenTable | None = None,
        turns: tuple[str, ...] = (),
        memory: bool = True,
    ) -> Trace:
        """Answer `prompt` under `plan`; see `Request` for the options.

        With `repeats` > 1 the first pass gives the answer and warms up, and `repeats` more passes
        are timed, the first of them for its memory too; with 1 the answering pass is measured.

        Raises:
            MemoryExhaustedError: the device has no memory left.
            ModelError: the checkpoint cannot be run.
            UsageError: the prompt and its answer are longer than the model's context.
        """
        request = Request(
            prompt, plan, generation, capture, observer, tokens, on_token, turns, memory
        )
        trace = self._measured(request)
        if repeats > 1:
            again = request.again(trace.answer_ids)
            passes = [self._measured(again)]
            passes += [self._pass(again)[0] for _ in range(repeats - 1)]
            trace.timings = [timing for done in passes for timing in done.timings]
            trace.peak_bytes = passes[0].peak_bytes
        return trace

    def compress(
        self, prompt: Prompt, plan: Plan, seed: int = 0, stop: Stop | None = None
    ) -> Compressed:
        """Run the encoder and prefill stages of `plan` and stop there.

        Args:
            prompt: model inputs.
            plan: the stages; cache policies are not asked.
            seed: of random stages.
            stop: the last action in the decoder, None for all of the plan.

        Raises:
            MemoryExhaustedError: the device has no memory left.
        """
        prompt = self._shown(prompt, plan)
        trace = self._empty_trace(prompt, plan)
        scene, anew = self._scene(trace, prompt, seed), _counts_anew(plan, prompt)
        request = Request(prompt, plan, Generation(max_new_tokens=0))
        check_prompt(self.adapter, request, anew)
        with pass_errors(self.adapter, prompt), torch.inference_mode(), _seeded(seed):
            encoded = encode(self.adapter, prompt, plan, scene)
            entry = enter(prompt, encoded.table, renumbered=anew)
            check_entry(self.adapter, request, entry, anew)
            cache = logical_cache(scene.decoder_layers)
            final = prefill_until_decided(self.adapter, encoded, entry, plan, scene, cache, stop)
        return Compressed(trace, encoded.table, final.table)

    def warm_up(self, prompt: Prompt) -> None:
        """One unmeasured token of the full model, so that no run pays for first times alone."""
        self._pass(Request(prompt, Plan("full"), Generation(max_new_tokens=1)))

    def follow(
        self,
        prompt: Prompt,
        plan: Plan,
        answer_ids: list[int],
        *,
        seed: int = 0,
        capture: bool = False,
        observer: Observer | None = None,
        tokens: TokenTable | None = None,
    ) -> tuple[Trace, Tensor]:
        """Feed a known answer under `plan` instead of the model's own choice.

        Returns:
            The trace, and (T, V) float32 logits, those from which each token would be chosen.
        """
        generation = Generation(forced=tuple(answer_ids), seed=seed)
        request = Request(prompt, plan, generation, capture, observer, tokens)
        trace, decoded = self._pass(request)
        return trace, torch.stack(decoded.logits)

    def _measured(self, request: Request) -> Trace:
        """One pass with its peak memory, if that is asked for."""
        if not request.memory:
            return self._pass(request)[0]
        with PeakMemory(self.adapter.device) as memory:
            trace, _ = self._pass(request)
        trace.peak_bytes, trace.memory_kind = memory.peak_bytes, memory.kind
        return trace

    def _pass(self, request: Request) -> tuple[Trace, Decoded]:
        """Encode, prefill and decode once."""
        request = replace(request, prompt=self._shown(request.prompt, request.plan))
        scene = self._begin(request)
        trace = scene.trace
        faults = pass_errors(self.adapter, request.prompt)
        with faults, torch.inference_mode(), _seeded(request.generation.seed):
            decoded = self._flow(request, scene)
        trace.answer_ids = list(decoded.ids)
        trace.answer = self.adapter.text(decoded.ids)
        trace.decode_kv_entries = decoded.entries
        trace.timings[0].decode_ms = decoded.step_ms
        trace.timings[0].policies_ms = decoded.policies_ms
        return trace, decoded

    def read_prompt(self, request: Request) -> PromptRead:
        """Everything before the first answer token; several of these can be decoded together.

        Raises:
            MemoryExhaustedError: the device has no memory left.
        """
        request = replace(request, prompt=self._shown(request.prompt, request.plan))
        scene = self._begin(request)
        faults = pass_errors(self.adapter, request.prompt)
        with faults, torch.inference_mode(), _seeded(request.generation.seed):
            read = self._read(request, scene)
            read.random_state = random_state(self.adapter.device)
        return read

    def answer_together(self, reads: list[PromptRead]) -> list[Trace]:
        """Make the answers of prompts that were read, in one batch; see `alone_because`.

        The traces have no time of decode or of the whole and no peak of memory: a share of a batch
        is nobody's latency.

        Raises:
            MemoryExhaustedError: the device has no memory left.
        """
        with pass_errors(self.adapter, *(read.request.prompt for read in reads)):
            answers = decode_together(self.adapter, reads)
        for read, decoded in zip(reads, answers, strict=True):
            trace = read.trace
            trace.answer_ids = list(decoded.ids)
            trace.answer = self.adapter.text(decoded.ids)
            trace.decode_kv_entries = decoded.entries
            trace.final_kv_entries = entries_after(read, len(decoded.entries))
            trace.timings[0].total_ms = None
        return [read.trace for read in reads]

    def _shown(self, prompt: Prompt, plan: Plan) -> Prompt:
        """The prompt with its videos unpooled if a stage takes the place of the pooling."""
        return self.adapter.unpooled(prompt) if plan.before_pooling else prompt

    def _begin(self, request: Request) -> Scene:
        """An empty trace and what the decisions of its pass share."""
        anew = _counts_anew(request.plan, request.prompt)
        check_prompt(self.adapter, request, anew)
        trace = self._empty_trace(request.prompt, request.plan)
        trace.given = None if request.tokens is None else _given(request.tokens)
        return self._scene(trace, request.prompt, request.generation.seed)

    def _flow(self, request: Request, scene: Scene) -> Decoded:
        """The way of the data, with a clock at each station."""
        read = self._read(request, scene)
        decoder = Decoder(
            self.adapter,
            read.cache,
            read.evictor,
            request.generation,
            request.plan.positions == "renumbered",
            request.on_token,
        )
        decoded = decoder.answer(read.first, read.next_position)
        timing, trace = read.timing, scene.trace
        timing.total_ms = read.watch.total_ms()
        timing.compression_ms = _compression_ms(trace)
        trace.final_kv_entries = [stored.entries for stored in read.cache.layers]
        if request.turns:
            trace.turns = further_turns(decoder, decoded, read.next_position, request.turns)
        return decoded

    def _read(self, request: Request, scene: Scene) -> PromptRead:
        """Encode, prefill and let the cache policies decide once."""
        trace, adapter, plan = scene.trace, self.adapter, request.plan
        cache = logical_cache(scene.decoder_layers)
        watch = Stopwatch(adapter.device)
        encoded = self._encoded(request, scene)
        lap_ms = watch.lap_ms()
        timing = Timings(vision_ms=lap_ms if request.tokens is None else None)
        anew = _counts_anew(plan, request.prompt)
        entry = enter(request.prompt, encoded.table, renumbered=anew)
        check_entry(adapter, request, entry, anew)
        first, layers = prefill(adapter, encoded, entry, plan, scene, cache, request.observer)
        trace.first_logits = first.float().cpu()
        timing.prefill_ms, timing.ttft_ms = watch.lap_ms(), watch.total_ms()
        evictor = Evictor(plan, scene, cache, entry.sequence, layers[-1])
        evictor.after_prompt()
        _note_lengths(trace, layers, cache)
        timing.compression_ms = _compression_ms(trace)
        trace.timings.append(timing)
        if request.capture:
            trace.captured = _features(encoded.table)
        return PromptRead(request, trace, first, entry.next_position, cache, evictor, timing, watch)

    def _encoded(self, request: Request, scene: Scene) -> Encoded:
        """What enters the decoder: the tower's tokens, or those of the request."""
        if request.tokens is None:
            return encode(self.adapter, request.prompt, request.plan, scene)
        kinds = request.prompt.kinds
        return Encoded(request.tokens, self.adapter.carry(request.tokens.features, kinds))

    def _scene(self, trace: Trace, prompt: Prompt, seed: int) -> Scene:
        """What the decisions of one pass share."""
        return Scene(
            trace=trace,
            layout=prompt.layout,
            decoder_layers=len(self.adapter.decoder_layers),
            budget=trace.plan.budget,
            seed=seed,
            device=self.adapter.device,
        )

    def _empty_trace(self, prompt: Prompt, plan: Plan) -> Trace:
        visual = int(prompt.visual_index.shape[0])
        return Trace(
            model=self.facts,
            plan=plan,
            layout=prompt.layout,
            tower_inputs=prompt.tower,
            prompt_tokens=prompt.prompt_tokens,
            text_tokens=prompt.prompt_tokens - visual,
            full_prompt=None if prompt.pooled is None else prompt.pooled.sizes,
            warnings=[*prompt.warnings, *plan.warnings],
            environment=environment(self.adapter.device),
        )


def environment(device: torch.device) -> dict[str, Any]:
    """Versions and platform, as in the result file."""
    import transformers

    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "vtc": __version__,
        "torch": str(torch.__version__),
        "transformers": transformers.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "gpu": gpu,
    }


@dataclass(frozen=True, eq=False)
class Compressed:
    """Visual tokens of a pass that stopped after its last encoder or prefill stage.

    Attributes:
        trace: the decisions; nothing was timed or generated.
        entering: tokens that enter the decoder, features (N, d) those of its door.
        final: tokens that the last stage left, features (K, d) the hidden states at the input of
            its layer; the same as `entering` if no stage acts in the decoder.
    """

    trace: Trace
    entering: TokenTable
    final: TokenTable


def _counts_anew(plan: Plan, prompt: Prompt) -> bool:
    """Whether position ids are counted at the decoder's door.

    Ids with several axes are places in space and time: pooling leaves no gaps in them that
    `entered` would have to close, and counting would lose the places.
    """
    plain = prompt.position_ids.ndim == 2
    return plan.positions == "renumbered" or (plan.positions == "entered" and plain)


def _compression_ms(trace: Trace) -> float:
    return sum(record.decision_ms + record.signal_ms for record in trace.records)


def _given(table: TokenTable) -> Given:
    return Given(len(table), int(table.protected.sum()))


def _features(table: TokenTable) -> dict[str, Tensor]:
    """Visual features that enter the decoder, (N, d) float32, and the anchor of each, (N,)."""
    return {"features": table.features.float().cpu(), "anchor": table.anchor.cpu()}


def _note_lengths(trace: Trace, layers: list[Sequence], cache: Any) -> None:
    """What each layer processed and what its cache holds after the policies."""
    trace.visual_tokens = [len(sequence.table) for sequence in layers]
    held = [sequence.table.span for sequence in layers]
    trace.visual_by_span = [
        [int((span == number).sum()) for span in held] for number in range(trace.layout.spans)
    ]
    trace.sequence_tokens = [len(sequence) for sequence in layers]
    trace.kv_entries = [stored.entries for stored in cache.layers]
    trace.kv_bytes = sum(stored.bytes for stored in cache.layers)


@contextmanager
def _seeded(seed: int) -> Any:
    """Sampling from `seed` that leaves the global random state as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield
