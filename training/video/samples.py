"""Makes the sample clips and their questions: `python -m training.video.samples`.

Each file holds the eight frames and nothing else, so that `vtc run --frames 8` takes every one.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

import av
import numpy as np
from PIL import Image

from training.samples import FOLDER, SCALE, SIDE
from training.video.clips import FRAMES, Clip, compose_clip, draw_clip
from training.video.data import SAMPLE_SEEDS
from training.video.questions import MAKERS, ClipQuestion

RATE = 2  # frames a second
QUALITY = "16"  # of H.264: 0 is lossless, 23 usual
# Name and offset in the range of sample seeds: the first with a digit and with both directions.
SAMPLES = (("crossing", 7), ("passing", 8))
TRIES = 50


def sample_clip(offset: int) -> Clip:
    """Return a sample in its large drawing size."""
    return compose_clip(SAMPLE_SEEDS[offset], SIDE * SCALE)


def sample_frames(offset: int) -> list[Image.Image]:
    """Return the frames of a sample, 320 x 320 pixels with smooth edges."""
    large = draw_clip(sample_clip(offset))
    return [frame.resize((SIDE, SIDE), Image.Resampling.LANCZOS) for frame in large]


def sample_questions(offset: int) -> list[ClipQuestion]:
    """Return one question of every category on a sample."""
    rng, clip = random.Random(SAMPLE_SEEDS[offset]), sample_clip(offset)
    found = []
    for maker in MAKERS.values():
        made = (maker(clip, rng) for _ in range(TRIES))
        found += [next(question for question in made if question is not None)]
    return found


def write_video(frames: list[Image.Image], path: Path) -> None:
    """Write frames as H.264 in MP4."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"crf": QUALITY})
        stream.width, stream.height = frames[0].size
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.asarray(frame), "rgb24")))
        container.mux(stream.encode())


def main() -> None:
    """Write the clips and video_questions.jsonl."""
    lines = []
    for name, offset in SAMPLES:
        frames = sample_frames(offset)
        assert len(frames) == FRAMES
        write_video(frames, FOLDER / f"{name}.mp4")
        for question in sample_questions(offset):
            line = {
                "media": f"{name}.mp4",
                "question": question.text,
                "answer": question.answer,
                "category": question.category,
            }
            lines.append(json.dumps(line))
    (FOLDER / "video_questions.jsonl").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
