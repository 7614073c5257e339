"""A session: one loaded model that answers questions under plans and leaves traces."""

from __future__ import annotations

import platform
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from vtc_cli import __version__
from vtc_cli.core.errors import MemoryExhaustedError
from vtc_cli.core.plan import Plan
from vtc_cli.core.trace import ModelFacts, Timings, Trace
from vtc_cli.engine.cache import logical_cache
from vtc_cli.engine.clock import PeakMemory, Stopwatch
from vtc_cli.engine.decode import Decoded, Generation, decode
from vtc_cli.engine.encode import encode
from vtc_cli.engine.evict import Evictor
from vtc_cli.engine.prefill import prefill
from vtc_cli.engine.sequence import Sequence, enter
from vtc_cli.engine.step import Scene
from vtc_cli.models.support.base import Adapter, Prompt

OnToken = Callable[[list[int]], None]


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
    ) -> Trace:
        """Answer `prompt` under `plan`.

        With `capture` the trace keeps the visual features at the decoder's door.

        With `repeats` > 1 the first pass gives the answer and warms up, and `repeats` more passes
        are timed, the first of them for its memory too; with 1 the answering pass is measured.

        Raises:
            MemoryExhaustedError: the device has no memory left.
        """
        trace = self._measured(prompt, plan, generation, on_token)
        if repeats > 1:
            again = replace(generation, forced=tuple(trace.answer_ids))
            passes = [self._measured(prompt, plan, again, None)]
            passes += [self._pass(prompt, plan, again, None)[0] for _ in range(repeats - 1)]
            trace.timings = [timing for done in passes for timing in done.timings]
            trace.peak_bytes = passes[0].peak_bytes
        if capture:
            trace.captured = self._features(prompt, plan, generation.seed)
        return trace

    def _features(self, prompt: Prompt, plan: Plan, seed: int) -> dict[str, Tensor]:
        """Visual features that enter the decoder, (N, d) float32, and the anchor of each, (N,)."""
        trace = self._empty_trace(prompt, plan)
        with _memory_errors(), torch.inference_mode(), _seeded(seed):
            table = encode(self.adapter, prompt, plan, self._scene(trace, prompt, seed)).table
        return {"features": table.features.float().cpu(), "anchor": table.anchor.cpu()}

    def warm_up(self, prompt: Prompt) -> None:
        """One unmeasured token of the full model, so that no run pays for first times alone."""
        self._pass(prompt, Plan("full"), Generation(max_new_tokens=1), None)

    def _measured(
        self, prompt: Prompt, plan: Plan, generation: Generation, on_token: OnToken | None
    ) -> Trace:
        """One pass with its peak memory."""
        with PeakMemory(self.adapter.device) as memory:
            trace, _ = self._pass(prompt, plan, generation, on_token)
        trace.peak_bytes, trace.memory_kind = memory.peak_bytes, memory.kind
        return trace

    def answer_nll(self, prompt: Prompt, plan: Plan, answer_ids: list[int], seed: int = 0) -> float:
        """Mean negative log-likelihood (nats a token) of `answer_ids` under `plan`."""
        generation = Generation(forced=tuple(answer_ids), seed=seed)
        _, decoded = self._pass(prompt, plan, generation, None)
        logits = torch.stack(decoded.logits).double()
        target = torch.tensor(answer_ids, device=logits.device)
        return float(torch.nn.functional.cross_entropy(logits, target))

    def _pass(
        self, prompt: Prompt, plan: Plan, generation: Generation, on_token: OnToken | None
    ) -> tuple[Trace, Decoded]:
        """Encode, prefill and decode once."""
        trace = self._empty_trace(prompt, plan)
        scene = self._scene(trace, prompt, generation.seed)
        with _memory_errors(), torch.inference_mode(), _seeded(generation.seed):
            decoded = self._flow(prompt, plan, generation, scene, on_token)
        trace.answer_ids = list(decoded.ids)
        trace.answer = self.adapter.text(decoded.ids)
        trace.decode_kv_entries = decoded.entries
        trace.timings[0].decode_ms = decoded.step_ms
        return trace, decoded

    def _flow(
        self,
        prompt: Prompt,
        plan: Plan,
        generation: Generation,
        scene: Scene,
        on_token: OnToken | None,
    ) -> Decoded:
        """The way of the data, with a clock at each station."""
        trace, adapter, renumbered = scene.trace, self.adapter, plan.positions == "renumbered"
        cache = logical_cache(scene.decoder_layers)
        watch = Stopwatch(adapter.device)
        encoded = encode(adapter, prompt, plan, scene)
        timing = Timings(vision_ms=watch.lap_ms())
        entry = enter(prompt, encoded.table, renumbered=renumbered)
        first, layers = prefill(adapter, encoded, entry, plan, scene, cache)
        trace.first_logits = first.float().cpu()
        timing.prefill_ms, timing.ttft_ms = watch.lap_ms(), watch.total_ms()
        evictor = Evictor(plan, scene, cache, entry.sequence, layers[-1])
        evictor.after_prompt()
        _note_lengths(trace, layers, cache)
        decoded = decode(
            adapter,
            first,
            entry.next_position,
            cache,
            evictor,
            generation,
            renumbered=renumbered,
            on_token=on_token,
        )
        timing.total_ms = watch.total_ms()
        timing.compression_ms = sum(r.decision_ms + r.signal_ms for r in trace.records)
        trace.final_kv_entries = [stored.entries for stored in cache.layers]
        trace.timings.append(timing)
        return decoded

    def _scene(self, trace: Trace, prompt: Prompt, seed: int) -> Scene:
        """What the decisions of one pass share."""
        return Scene(
            trace=trace,
            grid=prompt.grid,
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
            grid=prompt.grid,
            prompt_tokens=prompt.prompt_tokens,
            text_tokens=prompt.prompt_tokens - visual,
            warnings=list(plan.warnings),
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


def _note_lengths(trace: Trace, layers: list[Sequence], cache: Any) -> None:
    """What each layer processed and what its cache holds after the policies."""
    trace.visual_tokens = [len(sequence.table) for sequence in layers]
    trace.sequence_tokens = [len(sequence) for sequence in layers]
    trace.kv_entries = [stored.entries for stored in cache.layers]
    trace.kv_bytes = sum(stored.bytes for stored in cache.layers)


@contextmanager
def _seeded(seed: int) -> Any:
    """Sampling from `seed` that leaves the global random state as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


@contextmanager
def _memory_errors() -> Any:
    """Turn the library's out-of-memory error into ours."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        # The CPU allocator has no error class of its own.
        if type(error) is RuntimeError and "can't allocate memory" not in str(error):
            raise
        raise MemoryExhaustedError(
            (str(error) or "the device has no memory left").splitlines()[0],
            hint="a smaller --dtype, --device cpu or a smaller model",
        ) from error
