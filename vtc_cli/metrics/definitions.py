"""What each reported figure means; printed by `vtc explain` without loading any model library."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Definition:
    """One figure of a report.

    Attributes:
        name: how it is called.
        fields: where it stands in the result file.
        meaning: what it is.
        formula: how it is computed.
        unit: of the number.
        source: where the convention comes from or what the figure is read from.
        aliases: other names that `vtc explain` accepts.
    """

    name: str
    fields: str
    meaning: str
    formula: str
    unit: str
    source: str
    aliases: tuple[str, ...] = ()


_ALL = (
    Definition(
        "tokens",
        "tokens.original, tokens.text, tokens.per_layer, tokens.by_stage",
        "Visual tokens in each place of the model. Three counts are reported together, because "
        "papers mean different ones: `entering`, `layer_average` and `final`.",
        "per_layer[l] = visual tokens that decoder layer l processed in the prefill",
        "tokens",
        "counted in the pass itself",
    ),
    Definition(
        "entering",
        "tokens.entering",
        "Visual tokens that decoder layer 0 processes, after all encoder stages.",
        "per_layer[0]",
        "tokens",
        "counted in the pass itself",
    ),
    Definition(
        "layer_average",
        "tokens.layer_average, tokens.requested",
        "Mean over decoder layers of the visual tokens processed there; a budget asks for it.",
        "sum(per_layer) / layers",
        "tokens",
        'the "equivalent tokens" of SparseVLM (arXiv 2410.04417) and MustDrop (2411.10803)',
        ("average", "budget", "equivalent"),
    ),
    Definition(
        "leaving_average",
        "tokens.leaving_average",
        "Mean over decoder layers of the visual tokens that leave each layer. A paper that prunes "
        "at the output of a layer and counts afterwards reports this smaller figure.",
        "(sum(per_layer[1:]) + per_layer[-1]) / layers",
        "tokens",
        "official code of MustDrop (arXiv 2411.10803)",
        ("leaving", "official_average"),
    ),
    Definition(
        "information",
        "information.energy_kept, information.ics_kept, information.by_stage",
        "How much of the full model's visual features the tokens alive at the last layer hold. "
        "Merging in the decoder counts: a merged row is the mean of its rows at the door. "
        "Energy is that of the projected features inside the span of the kept rows; ICS is the "
        "information contribution score of the original tokens that live on, alone or inside a "
        "mean. Measured with --baseline; both are 1 when nothing is compressed, and null where the "
        "tokens are not made of the full model's: of a smaller picture, or of a video whose frames "
        "a stage pools in place of the model.",
        "energy_kept = |X P|^2 / |X|^2, P the projection on the row space of the kept rows\n"
        "ics_kept = sum over kept i of c_i / sum of c_i, c_i = sum_j |U_ij| sigma_j, X = U S V^T",
        "share, 0 to 1",
        "ICS: TokenCarve (arXiv 2503.10501)",
        ("energy", "ics", "energy_kept", "ics_kept"),
    ),
    Definition(
        "rank",
        "information.layers[].rank, rank_first, rank_last",
        "Numerical rank of the visual rows of a layer: singular values above tau times the "
        "largest. tau is always stated, for it decides the figure: rounding in bfloat16 fills "
        "every direction a little. At most the smaller of tokens and width.",
        "rank = #{i : sigma_i > tau sigma_1}",
        "directions",
        "tau 1e-5: the public re-creation of TokenCarve's curve (arXiv 2503.10501); `--tau`",
        ("numerical_rank", "tau"),
    ),
    Definition(
        "effective_rank",
        "information.layers[].effective_rank, effective_rank_first, effective_rank_last",
        "How many directions the rows fill evenly: exp of the entropy of the normalised singular "
        "values. Between 1 and the rank, without a threshold.",
        "exp(-sum_i p_i ln p_i), p_i = sigma_i / sum sigma",
        "directions",
        "Roy and Vetterli, The effective rank, EUSIPCO 2007",
        ("effective", "entropy_effective_rank"),
    ),
    Definition(
        "stable_rank",
        "information.layers[].stable_rank",
        "Energy over the energy of the strongest direction; near 1 when one direction rules.",
        "|X|_F^2 / sigma_1^2",
        "directions",
        "Rudelson and Vershynin, Sampling from large matrices, J. ACM 2007",
        ("stable",),
    ),
    Definition(
        "energy_rank",
        "information.layers[].energy_rank",
        "Fewest directions that hold 99 % of the energy.",
        "least k with sum_{i <= k} sigma_i^2 >= 0.99 |X|_F^2",
        "directions",
        "principal component analysis",
        ("energy_99",),
    ),
    Definition(
        "nuclear_norm",
        "information.layers[].nuclear_norm",
        "Sum of the singular values: size and number of directions together.",
        "sum_i sigma_i",
        "that of the features",
        "singular values in float64",
        ("nuclear",),
    ),
    Definition(
        "attention_mass",
        "information.layers[].attention_mass, runs[].heads[].mass",
        "Share of the attention of the text behind the picture that lands on visual tokens; mean "
        "over those text rows and, for a layer, over its heads. The softmax runs over all keys.",
        "mean over heads h and rows q of sum over visual j of A[h, q, j]",
        "share, 0 to 1",
        "rows of the model's own attention; no full map is made",
        ("mass", "heads"),
    ),
    Definition(
        "attention_entropy",
        "information.layers[].attention_entropy, runs[].heads[].entropy",
        "How evenly that attention is spread over the visual tokens: 0 when one token gets all, "
        "ln N when N tokens get the same.",
        "-sum_j p_j ln p_j, p_j = A[h, q, j] / sum over visual j of A[h, q, j]",
        "nats",
        "rows of the model's own attention",
        ("entropy",),
    ),
    Definition(
        "redundancy",
        "runs[].redundancy",
        "How alike the visual rows at the decoder's door are: mean cosine similarity over all "
        "pairs of different rows. 1 when all point the same way.",
        "mean over i != j of x_i . x_j / (|x_i| |x_j|)",
        "cosine, -1 to 1",
        "projected features",
        ("cosine",),
    ),
    Definition(
        "sweep",
        "sweeps[].points",
        "One selection of tokens at one layer, the same for all selections, at falling counts. "
        "`rank_first` and `rank_last` are those of the first layer that processes the selection "
        "and of the last layer; `correct` is the accuracy, with its 95 % Wilson interval.",
        "each column is the mean over the inputs",
        "see the columns",
        "TokenCarve (arXiv 2503.10501), rank against accuracy",
        ("points", "curve"),
    ),
    Definition(
        "association",
        "sweeps[].associations",
        "Whether a figure foretells accuracy. `across` is Spearman's rho over token counts: high "
        "for anything that falls with the count. `within` is the mean rho over inputs at one "
        "count, where that common cause is gone. p-values come from exchanging inputs.",
        "rho = correlation of ranks; within = mean over counts of rho over inputs",
        "-1 to 1",
        "ranks by scipy; permutation test with 2,000 exchanges",
        ("spearman", "correlation", "across", "within"),
    ),
    Definition(
        "final",
        "tokens.final",
        "Visual tokens that the last decoder layer still processes.",
        "per_layer[layers - 1]",
        "tokens",
        "counted in the pass itself",
    ),
    Definition(
        "flops",
        "flops.full, flops.compressed, flops.prefill_ratio",
        "Floating-point operations of the matrix products. Attention counts the full rectangle of "
        "queries and keys, the causal half is not discounted. The output head is counted for one "
        "row, the last of the prompt, and for one row a decode step. `compression` holds signals, "
        "decisions and weighted means, apart from all others. `decode_step` is the first step "
        "after the first token. Norms, softmax, rotary embeddings, activations and residual sums "
        "are not counted: about 1 % at ordinary width. `full` is computed from the sizes of the "
        "model, it need not run.",
        "layer(Q, K) = 2 Q [ d (2 h e + 2 g e) + 2 K h e + n d m ]\n"
        "prefill = sum over layers of layer(S_l, S_l) + 2 d V\n"
        "decode_step = sum over layers of layer(1, entries_l + 1) + 2 d V\n"
        "vision = 2 patches patch_inputs d_v + sum over tower layers of layer(rows_l, rows_l)\n"
        "projector = sum over maps of 2 tokens inputs outputs\n"
        "prefill_ratio = compressed.prefill / full.prefill\n"
        "with d width, h heads, g key/value heads, e channels a head, m MLP width,\n"
        "n = 3 gated MLP or 2, V vocabulary, S_l tokens in layer l",
        "operations; one multiply-add = 2",
        "convention of torch.utils.flop_counter, agreement within 1 % is tested",
        ("flop", "operations", "prefill_ratio", "decode_step", "compression"),
    ),
    Definition(
        "kv",
        "kv.bytes, kv.full_bytes, kv.entries_per_layer, kv.text_entries_per_layer, kv.requested, "
        "kv.gap, kv.counts",
        "Size of the key/value cache after the prompt and after the cache policies. `bytes` is "
        "counted from the tensors in the cache, `full_bytes` is that of the whole prompt. Entries "
        "are means over heads. Under a recipe whose cache policies alone follow a budget, the "
        "budget counts entries a layer and head: all of them, or the visual ones where text stays.",
        "full_bytes = 2 * kv_heads * head_dim * prompt_tokens * itemsize * layers\n"
        "gap = mean over layers of the counted entries - requested",
        "bytes (kB = 1000, MB = 1000 kB)",
        "the tensors of the cache; ragged heads by their true entries",
        ("cache", "kv_bytes"),
    ),
    Definition(
        "time",
        "time_ms.vision, .compression, .prefill, .ttft, .decode_per_token, .policies_per_token, "
        ".total, .spread",
        "Wall time, the device synchronised at each mark. `vision` is tower and projector, "
        "`prefill` the decoder over the prompt, `ttft` both up to the first token; the time of "
        "stages is inside these and listed once more as `compression`. With repeats the first "
        "pass warms up and is not counted. With --tokens no tower runs: `vision` is null and "
        "`ttft` begins when the tokens enter the decoder. A pass whose total lies more than 1.5 "
        "inter-quartile ranges outside the quartiles is flagged.",
        "median over passes; decode_per_token: median over all steps of all passes\n"
        "policies_per_token: the part of decode_per_token that cache policies took, likewise\n"
        "spread = half the inter-quartile range (4 passes or more), else (max - min) / 2\n"
        "ideal speed-up = full prefill FLOPs / compressed prefill FLOPs",
        "ms",
        "a monotonic clock around the model's own forward",
        ("latency", "ttft", "time_ms", "prefill", "speedup", "spread"),
    ),
    Definition(
        "memory",
        "memory.peak_bytes, memory.kind",
        "Largest memory in use during one pass. `cuda`: peak of the allocator, weights included. "
        "`rss`: growth of the resident set over its size before the pass.",
        "max over the pass",
        "bytes",
        "torch.cuda.max_memory_allocated, or the kernel's high-water mark VmHWM",
        ("peak_bytes", "rss"),
    ),
    Definition(
        "kl",
        "baseline.fidelity.kl_first_token",
        "Distance between the distributions of the first answer token under the full model and "
        "under compression; 0 means the same distribution.",
        "KL(full || compressed) = sum over tokens of p_full (ln p_full - ln p_compressed)",
        "nats",
        "logits of both passes, in float64",
        ("kl_first_token",),
    ),
    Definition(
        "top1",
        "baseline.fidelity.top1_agree",
        "Whether both models rank the same first answer token highest.",
        "argmax(full logits) == argmax(compressed logits)",
        "yes or no",
        "logits of both passes",
        ("top1_agree",),
    ),
    Definition(
        "nll",
        "baseline.fidelity.answer_nll_delta",
        "How much less likely the full model's answer becomes under compression, teacher forced; "
        "0 means as likely, positive means less likely.",
        "mean over answer tokens of -ln p_compressed(token) minus the same with p_full",
        "nats a token",
        "a second, forced pass of each model",
        ("answer_nll_delta",),
    ),
    Definition(
        "exact_match",
        "baseline.fidelity.exact_match",
        "Whether both models gave the same answer, token for token.",
        "full answer ids == compressed answer ids",
        "yes or no",
        "the two answers",
        ("match",),
    ),
    Definition(
        "accuracy",
        "arms[].accuracy, arms[].by_category",
        "Share of items answered rightly, in `vtc compare`. Items without a known answer do not "
        "count, and random weights have none. The interval is Wilson's, 95 %.",
        "right / count; what is right says the rule of --match or of the item",
        "share, 0 to 1",
        "Wilson 1927, as in statsmodels",
        ("wilson", "by_category"),
    ),
    Definition(
        "accuracy_drop",
        "arms[].against_full, arms[].against",
        "How much worse than the full model, and than each baseline at the budget that was "
        "achieved on the same item, in `vtc compare`. The p-value is McNemar's exact test over the "
        "items that only one of the two answers rightly, corrected by Holm's method over every "
        "test of the comparison. The interval is Newcombe's for paired shares (method 10).",
        "difference = accuracy of the arm - accuracy of the other, over common items\n"
        "p = P(a fair coin falls as unevenly as mine_only to other_only), two-sided",
        "share; --fail-if takes percentage points",
        "McNemar 1947, Holm 1979, Newcombe 1998, as in statsmodels",
        ("mcnemar", "holm", "newcombe", "against_full", "against"),
    ),
    Definition(
        "power",
        "arms[].against_full.items_needed, arms[].against.NAME.items_needed",
        "How many items `vtc compare` would need to see a difference of 5 points with a chance of "
        "80 % in one McNemar test at 0.05. A verdict without it says `no difference shown`, never "
        "that two are equal. Correction for many tests needs more. The share of items answered "
        "differently is the upper end of its 95 % Wilson interval, the worst that the items allow.",
        "power(n) = sum over k of P(k of n differ) P(the exact test rejects, k)\n"
        "k is binomial with share d; the first wins (1 + 0.05 / d) / 2 of the k\n"
        "about n = (1.960 sqrt(d) + 0.842 sqrt(d - 0.05^2))^2 / 0.05^2",
        "items",
        "exact sums; the closed form is Connor's, Biometrics 43 (1987)",
        ("items_needed", "sample_size"),
    ),
    Definition(
        "hard",
        "arms[].hard, hard_by",
        "Accuracy over the hard subset of `vtc compare`: items that the full model answers rightly "
        "and the down-sampled picture at the same budget wrongly. Without down-sampling the next "
        "baseline of average_pool and uniform takes its place; `hard_by` names it.",
        "right / count over items with full right and down-sampling wrong",
        "share, 0 to 1",
        "counted item by item",
        ("hard_accuracy", "hard_by"),
    ),
    Definition(
        "cost_ratio",
        "arms[].flops.cost_ratio, arms[].on_front",
        "What an arm of `vtc compare` costs: its prefill and the compression itself over the full "
        "model's prefill. The Pareto front is drawn over it and accuracy, or without answers over "
        "it and the mean KL; figures that are shown alike (to 0.1 % of cost, 0.1 points) count as "
        "equal.",
        "(prefill + compression) / full prefill, sums over items",
        "share of the full model",
        "counted as in `vtc explain flops`",
        ("pareto", "on_front", "cost"),
    ),
)

DEFINITIONS: Mapping[str, Definition] = {definition.name: definition for definition in _ALL}


def find(topic: str) -> Definition | None:
    """The definition called `topic`, by name or alias; case and a dotted prefix do not matter."""
    wanted = topic.strip().lower().replace("-", "_")
    for name in (wanted, wanted.rsplit(".", 1)[-1]):
        for definition in _ALL:
            if name == definition.name or name in definition.aliases:
                return definition
    return None
