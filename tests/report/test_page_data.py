"""The page without a browser: its data against dense matrices, its markup, colours and file."""

from __future__ import annotations

import base64
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.report import runs, traces
from tests.report.retold import Retold
from vtc_cli.core.decision import Decision
from vtc_cli.core.errors import UsageError, VtcError
from vtc_cli.core.layout import Grid
from vtc_cli.report.marks import FORMS, PALETTE
from vtc_cli.report.page import write
from vtc_cli.report.page.data import page_data, page_steps, score_ranks
from vtc_cli.report.page.head import NO_ANSWER
from vtc_cli.report.page.markup import Html, script_data, tag
from vtc_cli.report.page.picture import data_uri, frame_uris
from vtc_cli.report.page.tables import mark_glyph

ASSETS = Path(write.__file__).parent / "assets"
STYLE = (ASSETS / "page.css").read_text(encoding="utf-8")


def data(run: runs.Run) -> dict[str, object]:
    return page_data(run.trace, run.media, run.boxes, run.result.model_dump()["baseline"])


def test_steps_follow_the_decisions() -> None:
    """Holder, tokens and protection equal those of matrices multiplied through."""
    trace = runs.eventful().trace
    retold = Retold(trace)
    steps = page_steps(trace)
    assert [step["name"] for step in steps] == ["the picture", "merge", "mark", "prune", "join"]
    for step, state in zip(steps, retold.states, strict=True):
        rows = [state.row(patch) for patch in range(trace.original_tokens)]
        assert step["holder"] == [-1 if row is None else row for row in rows]
        assert step["tokens"] == state.anchors
        assert step["protected"] == [row for row, on in enumerate(state.protected) if on]
    assert steps[2]["protected"] and steps[4]["protected"]


def test_protection_stays_when_more_is_protected() -> None:
    """A second stage that protects other rows takes nothing from the first."""
    story = runs.Story(Grid(1, 1, 4))
    for row in (0, 2):
        marks = torch.arange(4) == row
        decision = Decision.identity(4, torch.device("cpu"), protect=marks)
        story.apply("toy.mark", "prefill", row, decision)
    steps = page_steps(runs.told(Grid(1, 1, 4), story.records, 3, runs.noise()).trace)
    assert [step["protected"] for step in steps] == [[], [0], [0, 2]]
    assert [record.protected_tokens for record in story.records] == [1, 2]


def test_scores_are_ranked_with_ties_and_gaps() -> None:
    """Equal scores share the better rank; what is no number has none and breaks no JSON."""
    assert score_ranks(torch.tensor([0.5, 2.0, 0.5, -1.0])).tolist() == [2, 1, 2, 4]
    steps = page_steps(runs.eventful().trace)
    assert steps[2]["scores"][0] is None and steps[2]["scores"][1] == 0.0001
    assert steps[3]["ranks"][:3] == [1, 2, 2] and steps[3]["ranks"][-1] == 44


def test_layers_see_what_the_engine_counted() -> None:
    """For `tiny` too: the tokens of the step in force are those that each layer processed."""
    run = runs.eventful()
    decoder = page_data(run.trace, run.media, run.boxes)["decoder"]
    assert decoder["seen"] == [2, 2, 3, 3, 4, 4] and decoder["ran"]
    counts = [len(page_steps(run.trace)[step]["tokens"]) for step in decoder["seen"]]
    assert counts == run.trace.visual_tokens == [45, 45, 24, 24, 23, 23]


def test_caches_share_their_sets() -> None:
    """Layers with the same entries name one set; an untouched layer names none."""
    story = runs.Story(Grid(1, 2, 3))
    for layer in (1, 2):
        story.evict("toy.forget", layer, [0, 5], 6)
    story.evict("toy.forget", 3, [4], 6)
    run = runs.told(Grid(1, 2, 3), story.records, 5, runs.noise())
    caches = page_data(run.trace, run.media, run.boxes)["decoder"]["caches"]
    assert caches == {
        "policies": ["forget"],
        "sets": [[0, 5], [4]],
        "layers": [None, 0, 0, 1, None],
        "repeated": False,
    }
    story.evict("toy.forget", 3, [], 1)
    run = runs.told(Grid(1, 2, 3), story.records, 5, runs.noise())
    caches = page_data(run.trace, run.media, run.boxes)["decoder"]["caches"]
    assert caches["sets"][caches["layers"][3]] == [] and caches["repeated"]


def test_a_run_that_began_with_other_tokens_is_refused() -> None:
    trace = runs.eventful().trace
    trace.records = trace.records[1:]
    with pytest.raises(UsageError, match="45 tokens came in, 48 were known"):
        page_steps(trace)


def test_curves_of_run_and_full_model() -> None:
    """Figures come from the observer, those of the full model from the result; nothing else."""
    run = runs.eventful()
    curves = data(run)["curves"]
    assert curves["run"]["tokens"] == [45, 45, 24, 24, 23, 23]
    assert curves["run"]["effective_rank"] == [22.5, 22.5, 12, 12, 11.5, 11.5]
    assert curves["run"]["attention_mass"][1] == pytest.approx(0.6005)
    assert curves["tau"] == 1e-5 and curves["full"] is None
    full = {"tokens": {"per_layer": [48] * 6}, "information": None}
    curves = page_data(run.trace, run.media, run.boxes, full)["curves"]
    assert curves["full"]["tokens"] == [48] * 6 and curves["full"]["rank"] is None
    run.trace.observed = []
    curves = data(run)["curves"]
    assert curves["run"]["rank"] is None and curves["run"]["tokens"]


def test_markup_escapes_what_is_not_markup() -> None:
    assert tag("p", "<b>&", Html("<i></i>"), title='"x"', hidden=True, id=None) == (
        '<p title="&quot;x&quot;" hidden>&lt;b&gt;&amp;<i></i></p>'
    )
    hostile = "</script><script>alert(1)<!-- \u2028 &"
    shown = script_data("x", {"text": hostile})
    inner = shown.removeprefix('<script type="application/json" id="x">').removesuffix("</script>")
    assert not set("<>&\u2028") & set(inner)
    assert json.loads(inner) == {"text": hostile}


HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&"


def hostile_run() -> runs.Run:
    """Every text that a user or a model can choose is hostile."""
    run = runs.eventful()
    run.trace.answer = HOSTILE
    run.trace.model = replace(run.trace.model, id=HOSTILE)
    run.trace.plan = replace(run.trace.plan, name=HOSTILE)
    run.trace.records = [
        replace(one, stage=f"toy.{HOSTILE}", decision=replace(one.decision, note=HOSTILE))
        for one in run.trace.records
    ]
    media = replace(run.media, path=HOSTILE)
    result = runs.result_of(run.trace, media, HOSTILE)
    return replace(run, media=media, result=result.model_copy(update={"warnings": [HOSTILE]}))


def test_no_text_becomes_markup() -> None:
    """The page has its own three scripts and no picture element, whatever the texts say."""
    page = hostile_run().page()
    assert len(re.findall(r"<script", page)) == 3 and "<img" not in page
    assert page.count("</script") == 3


def test_no_asset_ends_its_own_element() -> None:
    for path in ASSETS.glob("*.js"):
        assert not re.search(r"</script|<!--", path.read_text(encoding="utf-8")), path
    assert "</style" not in STYLE


def test_the_page_asks_for_nothing_from_elsewhere() -> None:
    """No address but the name space of SVG, and a policy that allows no other source."""
    page = runs.eventful().page()
    addresses = set(
        re.findall(r"(?:https?:)?//[\w.-]+\w[^\s\"'<)]*", re.sub(r"data:[^\"]*", "", page))
    )
    assert {one for one in addresses if "." in one.split("/")[2]} == {"http://www.w3.org/2000/svg"}
    assert '<link rel="icon" href="data:,">' in page  # or a browser asks the server for one
    assert "default-src 'none'" in page and "@import" not in page and "url(" in page
    assert set(re.findall(r"url\(([^)]*)\)", page)) >= {"#hatch"}
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", page))


def test_nothing_moves() -> None:
    """Whoever asks for reduced motion gets the same page: nothing in it is animated."""
    assert not re.search(r"transition|animation|scroll-behavior", STYLE)


def theme(block: str) -> dict[str, str]:
    return dict(re.findall(r"--([\w-]+):\s*(#[0-9a-f]{3,6}|rgb\([^)]*\));", block))


LIGHT = theme(STYLE.split("}", 1)[0])
DARK = LIGHT | theme(STYLE.split("prefers-color-scheme: dark", 1)[1].split("}", 1)[0])
PAPER = LIGHT | theme(STYLE.split("@media print", 1)[1].split("}", 1)[0])


def rgb(text: str, below: tuple[float, ...] = ()) -> tuple[float, ...]:
    """Channels 0..1 of a colour; a translucent one laid over `below`."""
    if text.startswith("#"):
        digits = text[1:] if len(text) == 7 else "".join(2 * digit for digit in text[1:])
        return tuple(int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4))
    *channels, share = (float(number) for number in re.findall(r"[\d.]+", text))
    return tuple(
        share / 100 * channel / 255 + (1 - share / 100) * base
        for channel, base in zip(channels, below, strict=True)
    )


def luminance(colour: tuple[float, ...]) -> float:
    """Relative luminance of WCAG 2."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_that_of_the_standard() -> None:
    assert contrast(rgb("#000"), rgb("#ffffff")) == pytest.approx(21)
    assert contrast(rgb("#777777"), rgb("#fff")) == pytest.approx(4.478, abs=1e-3)


@pytest.mark.parametrize("colours", [LIGHT, DARK, PAPER], ids=["light", "dark", "print"])
def test_text_can_be_read(colours: dict[str, str]) -> None:
    """Every ink on every ground on which it stands: at least 4.5 to 1; edges of cells 2 to 1."""
    paper = rgb(colours["paper"])
    faint = rgb(colours["accent-faint"], paper)
    wash = rgb(colours["accent-wash"], paper)
    grounds = {"paper": paper, "raised": rgb(colours["raised"]), "faint": faint, "wash": wash}
    for ink in ("ink", "soft", "accent"):
        for name, ground in grounds.items():
            assert contrast(rgb(colours[ink]), ground) >= 4.5, (ink, name)
    assert contrast(rgb(colours["alarm"]), rgb(colours["alarm-wash"])) >= 4.5
    assert contrast(rgb(colours["alarm"]), paper) >= 4.5
    assert contrast(rgb(colours["edge"]), paper) >= 2


def test_colours_of_the_style_are_variables() -> None:
    """Ink and ground follow the theme everywhere; fixed colours stand on the picture only."""
    fixed = re.findall(r"(?<!-)\b(?:color|background): (#\w+|rgb\()", STYLE)
    assert fixed == []


def test_marks_are_those_of_the_overlay() -> None:
    marks = data(runs.eventful())["marks"]
    assert marks["forms"] == list(FORMS)
    assert [tuple(bytes.fromhex(colour[1:])) for colour in marks["colours"]] == list(PALETTE)
    script = (ASSETS / "drawing.js").read_text(encoding="utf-8")
    paths = script.split("FORM_PATHS = {", 1)[1].split("\n};", 1)[0]
    assert re.findall(r"^  (\w+): \(", paths, re.MULTILINE) == list(FORMS)
    assert len({mark_glyph(number) for number in range(35)}) == 35


def decoded(uri: str) -> Image.Image:
    kind, _, content = uri.partition(";base64,")
    assert kind in ("data:image/png", "data:image/jpeg")
    return Image.open(io.BytesIO(base64.b64decode(content)))


def test_small_pictures_keep_every_pixel() -> None:
    media = traces.media()
    plain = np.full((1, 240, 320, 3), 90, dtype=np.uint8)
    plain[0, 40:80, 100:200] = (220, 50, 40)
    shown = decoded(data_uri(replace(media, frames=plain).picture()))
    assert (np.asarray(shown.convert("RGB")) == plain[0]).all()


def test_large_pictures_shrink_and_noise_becomes_jpeg() -> None:
    large = runs.noise(2400, 1200).picture()
    shown = decoded(data_uri(large))
    assert shown.size == (1000, 500) and shown.format == "JPEG"
    tight = data_uri(large, room_bytes=20_000)
    assert len(tight) < 1.34 * 20_000 + 40 and decoded(tight).width < 500
    assert decoded(data_uri(Image.new("RGB", (3000, 2)))).size == (1000, 1)


def test_frames_of_the_grid_pick_frames_of_the_clip() -> None:
    """A grid with half as many frames as the clip shows every second one, smaller."""
    pixels = (
        np.zeros((4, 20, 960, 3), dtype=np.uint8)
        + np.arange(4, dtype=np.uint8)[:, None, None, None] * 60
    )
    media = replace(runs.noise(frames=4), frames=pixels)
    shown = [decoded(uri) for uri in frame_uris(media, 2)]
    assert [np.asarray(one.convert("RGB")).max() for one in shown] == [0, 120]
    assert shown[0].size == (480, 10)


def test_the_page_is_there_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    run = runs.eventful()
    path = tmp_path / "page.html"
    path.write_text("old")
    run.trace.records = run.trace.records[1:]
    with pytest.raises(UsageError):
        write.write_page(path, run.result, run.trace, run.media, run.boxes)
    assert path.read_text() == "old"
    run = runs.eventful()
    write.write_page(path, run.result, run.trace, run.media, run.boxes)
    assert path.read_text(encoding="utf-8").endswith("</html>\n")
    folder = tmp_path / "folder.html"
    folder.mkdir()
    with pytest.raises(VtcError, match=re.escape(str(folder))):
        write.write_page(folder, run.result, run.trace, run.media, run.boxes)
    assert sorted(tmp_path.iterdir()) == [folder, path]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    run = runs.eventful()
    (tmp_path / "link.html").symlink_to(tmp_path / "page.html")
    write.write_page(tmp_path / "link.html", run.result, run.trace, run.media, run.boxes)
    assert (tmp_path / "link.html").is_symlink() and (tmp_path / "page.html").stat().st_size > 9000


def test_the_result_is_inside() -> None:
    run = runs.eventful()
    found = re.search(r'<script type="application/json" id="result">(.*?)</script>', run.page())
    assert found and json.loads(found.group(1)) == run.result.model_dump(mode="json")


@pytest.mark.parametrize("grid", [Grid(1, 24, 24), Grid(1, 48, 60), Grid(5, 24, 24)], ids=str)
def test_size_of_a_deep_model_s_page(grid: Grid) -> None:
    """576 and 2,880 patches, 32 layers with caches of their own, a picture that hardly packs."""
    picture = runs.noise(1000, 1000) if grid.frames == 1 else runs.noise(480, 480, 5)
    run = runs.eventful(grid, 32, picture)
    story = runs.Story(grid)
    story.records = run.trace.records
    for layer in range(4, 32):
        held = [token for token in page_steps(run.trace)[-1]["tokens"] if token % layer]
        story.evict("toy.forget", layer, held, grid.tokens)
    page = runs.told(grid, story.records, 32, picture).page()
    assert len(page) < 1.5e6


def test_random_weights_are_said_first() -> None:
    run = runs.eventful()
    random = runs.result_of(traces.random_weights(run.trace), run.media, "is it there?")
    page = replace(run, result=random).page()
    assert page.index("random weights: the answer means nothing") < page.index("answer under toy")


def test_a_page_of_decisions_alone() -> None:
    """Of a result without an answer the page says what is missing and invents nothing."""
    run = runs.decisions_only()
    page = run.page()
    assert NO_ANSWER in page and write.NOT_TIMED in page
    assert (
        "answer under" not in page and "0.0 ms" not in page.split("<footer>")[0].split("saved")[1]
    )
    found = data_of(page)
    assert found["decoder"]["ran"] is False and found["curves"]["run"]["tokens"] is None


def data_of(page: str) -> dict[str, dict[str, object]]:
    text = page.split('id="page-data">', 1)[1].split("</script>", 1)[0]
    return json.loads(text)  # type: ignore[no-any-return]


def test_one_patch_that_is_dropped_leaves_an_empty_picture() -> None:
    story = runs.Story(Grid(1, 1, 1))
    story.apply("toy.prune", "prefill", 0, Decision.prune(torch.zeros(0, dtype=torch.int64), 1))
    run = runs.told(Grid(1, 1, 1), story.records, 2, runs.noise(5, 5))
    assert data_of(run.page())["steps"][1]["holder"] == [-1]  # type: ignore[index]
