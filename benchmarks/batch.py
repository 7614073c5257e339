"""What a batch costs beside its answers, what decoding together saves, and how Ray workers scale.

All on `tiny` with one thread a process. The bare call is the library's own `generate` over inputs
that are ready, a job everything from the picture's file to the fsynced line. Both go over the same
jobs in turn, A B A B; wall time is told, and CPU time, which no other program lengthens.

Run: python benchmarks/batch.py [--jobs 20] [--turns 5] [--ray]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from vtc_cli.commands.loading import load_session
from vtc_cli.commands.output import Output
from vtc_cli.engine.session import Session
from vtc_cli.jobs.cluster import Cluster
from vtc_cli.jobs.connecting import ClusterOptions
from vtc_cli.jobs.job import Job, Settings
from vtc_cli.jobs.local import local_results
from vtc_cli.jobs.reading import JobsFile
from vtc_cli.jobs.results_file import ResultsFile
from vtc_cli.jobs.work import JobWork, Line, Worker
from vtc_cli.media.frame_options import FrameOptions
from vtc_cli.media.image import read_image

ITEMS = Path(__file__).parents[1] / "samples" / "eval" / "items.jsonl"
SETTINGS = Settings(device="cpu", frames=FrameOptions())
Seconds = tuple[float, float]


def jobs_of(folder: Path, count: int) -> list[Job]:
    """Jobs over the evaluation pictures, all kinds of question."""
    items = [json.loads(line) for line in ITEMS.read_text().splitlines()]
    chosen = items[:: max(1, len(items) // count)][:count]
    path = folder / "jobs.jsonl"
    lines = [json.dumps(item | {"media": str(ITEMS.parent / item["media"])}) for item in chosen]
    path.write_text("\n".join(lines) + "\n")
    return list(JobsFile(str(path), SETTINGS).jobs())


def timed(call: Callable[[], object]) -> Seconds:
    """Wall and CPU seconds of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - wall, time.process_time() - cpu


def spread(values: list[float]) -> str:
    """Median and range."""
    return f"{statistics.median(values):7.3f} ({min(values):.3f} .. {max(values):.3f})"


def bare(session: Session, jobs: list[Job]) -> Callable[[], None]:
    """The library's own generate for each job, inputs ready."""
    model = session.adapter.model
    prompts = [session.adapter.prepare(read_image(job.path), job.question) for job in jobs]

    def generate() -> None:
        for prompt in prompts:
            model.generate(
                input_ids=prompt.input_ids,
                attention_mask=torch.ones_like(prompt.input_ids),
                max_new_tokens=SETTINGS.max_new_tokens,
                do_sample=False,
                **prompt.encoder_inputs,
            )

    return generate


def batch(worker: Worker, jobs: list[Job], path: Path, size: int) -> Callable[[], None]:
    """The jobs as the command does them, to a new file."""

    def work() -> None:
        path.unlink(missing_ok=True)
        with ResultsFile(path) as results:
            for line in local_results(jobs, worker, batch_size=size):
                assert line.error is None
                results.append(line.text)

    return work


def overhead(folder: Path, count: int, turns: int) -> None:
    """A job beside a bare call, and jobs decoded together beside jobs one by one."""
    session = load_session(Output(quiet=True), "tiny", "cpu")
    jobs, worker = jobs_of(folder, count), Worker(session)
    calls = {
        "bare generate": bare(session, jobs),
        "batch job": batch(worker, jobs, folder / "r.jsonl", 1),
        "batch job of 8": batch(worker, jobs, folder / "r.jsonl", 8),
    }
    times: dict[str, list[Seconds]] = {name: [] for name in calls}
    for turn in range(turns + 1):  # the first turn warms up
        for name, call in calls.items():
            seconds = timed(call)
            if turn:
                times[name].append(seconds)
    for name, taken in times.items():
        walls, cpus = ([pair[part] / len(jobs) for pair in taken] for part in (0, 1))
        print(f"{name:16} s a job, wall {spread(walls)}, CPU {spread(cpus)}")
    for name, wanted in (("batch job", "wanted <= 1.10"), ("batch job of 8", "")):
        pairs = list(zip(times[name], times["bare generate"], strict=True))
        walls, cpus = ([mine[part] / bare[part] for mine, bare in pairs] for part in (0, 1))
        print(f"{name + ' / bare':21} wall {spread(walls)}, CPU {spread(cpus)}   {wanted}")


@contextmanager
def cluster_of(workers: int) -> Iterator[Cluster[Job, Line]]:
    """A local cluster whose workers have their models."""
    cluster = Cluster(JobWork(SETTINGS), ClusterOptions(workers=workers))
    cluster.start()
    try:
        cluster.await_workers(workers)
        yield cluster
    finally:
        cluster.close()


def scaling(folder: Path, count: int, turns: int) -> None:
    """Jobs a second of two workers beside one, each of one thread."""
    jobs = jobs_of(folder, count)
    rates: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(turns):
        for workers, taken in rates.items():
            with cluster_of(workers) as cluster:
                list(cluster.results(jobs[: 4 * workers]))  # warms up
                seconds, _ = timed(lambda each=cluster: list(each.results(jobs)))  # type: ignore[misc]
                taken.append(len(jobs) / seconds)
    for workers, taken in rates.items():
        print(f"{workers} Ray workers    jobs a second {spread(taken)}")
    ratios = [two / one for one, two in zip(rates[1], rates[2], strict=True)]
    print(f"two over one                 {spread(ratios)}   wanted >= 1.8")


def main() -> None:
    """Print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=20)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--ray", action="store_true", help="one and two Ray workers")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, threads {torch.get_num_threads()}, {options.jobs} jobs")
    with tempfile.TemporaryDirectory() as name:
        compare = scaling if options.ray else overhead
        compare(Path(name), options.jobs, options.turns)


if __name__ == "__main__":
    main()
