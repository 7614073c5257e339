"""The Ray engine on a real local cluster: lines of the local engine, whatever dies on the way."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.jobs.support import (
    ENVIRONMENT,
    EVAL,
    Values,
    comparable,
    items,
    lines_of,
    passes_of,
    vtc,
    write_jobs,
)
from vtc_cli.app import run_command_line
from vtc_cli.core import errors
from vtc_cli.jobs.ray_worker import packed, unpacked

SHORT = ["--device", "cpu", "-r", "uniform", "-b", "64", "--max-new-tokens", "6"]
BAD: list[Any] = ["{", {"id": "missing", "media": "no.png", "question": "what?"}]
needs_ray = pytest.mark.skipif(
    subprocess.run([sys.executable, "-c", "import ray"], capture_output=True).returncode != 0,
    reason="Ray is not installed",
)


@pytest.fixture(scope="module")
def cluster_starts() -> None:
    """A machine may forbid what Ray needs; then there is nothing to see here."""
    code = "import ray; ray.init(address='local', num_cpus=1, include_dashboard=False)"
    try:
        tried = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=180)
    except subprocess.TimeoutExpired:
        pytest.skip("Ray does not start here within three minutes")
    if tried.returncode:
        pytest.skip(f"Ray does not start here: {tried.stderr[-300:]!r}")


def command(target: str, *more: str) -> list[str]:
    return ["run", "--batch", "jobs.jsonl", "-o", target, *SHORT, *more]


# A shell that starts the suite in the background has told it to ignore interrupts.
INTERRUPTIBLE = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from vtc_cli.__main__ import main
main()
"""


def started(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", INTERRUPTIBLE, *arguments],
        cwd=folder,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.SIG_DFL
        ),  # ignored in the background
    )


def workers_below(pid: int) -> list[int]:
    """Ray workers with a model among the descendants of a process."""
    parents: dict[int, int] = {}
    names: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                names[int(entry.name)] = (entry / "cmdline").read_text()
            except OSError:
                continue  # it ended meanwhile
            parents[int(entry.name)] = int(fields[1])

    def is_below(process: int) -> bool:
        while process > 1:
            process = parents.get(process, 0)
            if process == pid:
                return True
        return False

    return [each for each, name in names.items() if "ray::RayWorker" in name and is_below(each)]


def wait_for(path: Path, count: int, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 120
    while not path.exists() or path.read_bytes().count(b"\n") < count:
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.01)


def by_line(path: Path) -> dict[int, Values]:
    """Lines by that of their job, each of which must be there once."""
    lines = lines_of(path)
    found = {line["job"]["line"]: comparable(line) for line in lines}
    assert len(found) == len(lines)
    return found


@needs_ray
@pytest.mark.usefixtures("cluster_starts")
def test_a_killed_workers_jobs_end_once_and_lines_are_those_of_the_local_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [*items(12), *BAD]
    write_jobs(tmp_path / "jobs.jsonl", jobs)
    cluster = started(tmp_path, *command("ray.jsonl", "--engine", "ray", "--workers", "2"))
    wait_for(tmp_path / "ray.jsonl", 2, cluster)
    victims = workers_below(cluster.pid)
    assert len(victims) == 2
    os.kill(victims[0], signal.SIGKILL)
    out, err = cluster.communicate(timeout=300)
    assert cluster.returncode == 1, err  # two jobs are bad
    assert out.startswith("12 done, 0 done before, 2 failed: ray.jsonl\n")
    assert "note: a worker died (killed or crashed)" in out and "raylet" not in out + err
    monkeypatch.chdir(tmp_path)
    assert run_command_line(command("local.jsonl")) == 1
    assert by_line(tmp_path / "ray.jsonl") == by_line(tmp_path / "local.jsonl")
    assert len(by_line(tmp_path / "ray.jsonl")) == len(jobs)


@needs_ray
@pytest.mark.slow
def test_each_of_the_workers_is_killed_once_and_jobs_are_decoded_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [*items(60), *BAD]
    write_jobs(tmp_path / "jobs.jsonl", jobs)
    options = ["--engine", "ray", "--workers", "2", "--batch-size", "3"]
    cluster = started(tmp_path, *command("ray.jsonl", *options))
    killed: set[int] = set()
    for count in (3, 12, 24):
        wait_for(tmp_path / "ray.jsonl", count, cluster)
        fresh = [pid for pid in workers_below(cluster.pid) if pid not in killed]
        os.kill(fresh[0], signal.SIGKILL)
        killed.add(fresh[0])
    _, err = cluster.communicate(timeout=600)
    assert cluster.returncode == 1, err
    monkeypatch.chdir(tmp_path)
    assert run_command_line(command("local.jsonl")) == 1
    ours, theirs = by_line(tmp_path / "ray.jsonl"), by_line(tmp_path / "local.jsonl")
    for lines in (ours, theirs):
        for line in lines.values():
            line.pop("warnings", None)  # who was decoded together with whom
    assert ours == theirs


@needs_ray
@pytest.mark.slow
def test_a_job_that_kills_its_workers_is_given_up_and_the_rest_is_done(tmp_path: Path) -> None:
    """A stage that ends its process, as the system does where memory runs out."""
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages" / "deadly.py").write_text(DEADLY)
    (tmp_path / "deadly.yaml").write_text("name: deadly\npaper: none\nencoder:\n  - deadly: {}\n")
    jobs = items(6)
    jobs[2] |= {"recipe": "deadly.yaml", "budget": "none"}
    write_jobs(tmp_path / "jobs.jsonl", jobs)
    environment = {**ENVIRONMENT, "VTC_PATH": str(tmp_path)}
    arguments = command("ray.jsonl", "--engine", "ray", "--workers", "2")
    finished = subprocess.run(
        [sys.executable, "-m", "vtc_cli", *arguments],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 1, finished.stderr
    lines = {line["job"]["line"]: line for line in lines_of(tmp_path / "ray.jsonl")}
    assert sorted(lines) == [1, 2, 3, 4, 5, 6]
    assert lines[3]["error"]["type"] == "WorkerLostError"
    assert "3 workers died over this job" in lines[3]["error"]["message"]
    assert all(line["error"] is None for number, line in lines.items() if number != 3)


DEADLY = '''"""Ends its process."""

import os
import signal
from dataclasses import dataclass

from vtc_cli.core.stage import EncoderStage


@dataclass(frozen=True, kw_only=True)
class Deadly(EncoderStage):
    """Ends its process."""

    paper = "none"

    def decide(self, tokens, signals):
        os.kill(os.getpid(), signal.SIGKILL)
'''


@needs_ray
@pytest.mark.slow
def test_an_interrupt_ends_the_cluster_and_a_local_run_goes_on(tmp_path: Path) -> None:
    jobs = items(40)
    write_jobs(tmp_path / "jobs.jsonl", jobs)
    cluster = started(tmp_path, *command("r.jsonl", "--engine", "ray", "--workers", "2"))
    wait_for(tmp_path / "r.jsonl", 3, cluster)
    workers = workers_below(cluster.pid)
    cluster.send_signal(signal.SIGINT)
    out, err = cluster.communicate(timeout=120)
    assert cluster.returncode == 130
    assert out == "" and "go on with: vtc run --batch" in err and "Traceback" not in err
    done = len(lines_of(tmp_path / "r.jsonl"))
    time.sleep(1.0)
    assert workers and not [pid for pid in workers if Path(f"/proc/{pid}").exists()]
    finished = vtc(*command("r.jsonl", "--json"), folder=tmp_path)
    summary = json.loads(finished.stdout)
    assert (summary["done_before"], summary["done"]) == (done, len(jobs) - done)
    assert len(by_line(tmp_path / "r.jsonl")) == len(jobs)


@needs_ray
@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        (["-m", "./none"], 4, "no such folder"),
        (["--gpus-per-worker", "1"], 2, "GPU each, and the cluster has 0"),
        (["--address", "auto"], 1, "no Ray cluster at auto"),
    ],
)
def test_what_cannot_start_is_one_block(
    tmp_path: Path, more: list[str], code: int, words: str
) -> None:
    write_jobs(tmp_path / "jobs.jsonl", items(1))
    finished = vtc(*command("r.jsonl", "--engine", "ray", *more), folder=tmp_path)
    assert finished.returncode == code, finished.stderr
    assert finished.stdout == "" and finished.stderr.startswith("error: ")
    assert words in finished.stderr and "Traceback" not in finished.stderr
    assert not (tmp_path / "r.jsonl").exists()


@needs_ray
@pytest.mark.slow
def test_nobody_at_the_address(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refused at once
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        write_jobs(tmp_path / "jobs.jsonl", items(1))
        arguments = command("r.jsonl", "--engine", "ray", "--address", address)
        begin = time.monotonic()
        finished = vtc(*arguments, folder=tmp_path)
    assert finished.returncode == 1
    assert f"no Ray cluster at {address}" in finished.stderr
    assert "Connection refused" in finished.stderr
    assert time.monotonic() - begin < 60


WITHOUT_RAY = """
import sys
class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "ray":
            raise ModuleNotFoundError(name)
import importlib.util
sys.meta_path.insert(0, Nothing())
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name == "ray" else find(name, package)
from vtc_cli.app import run_command_line
code = run_command_line(sys.argv[1:])
assert "ray" not in sys.modules
sys.exit(code)
"""


@pytest.mark.parametrize(("engine", "code"), [("ray", 2), ("local", 0)])
def test_without_ray_only_its_engine_is_missing(tmp_path: Path, engine: str, code: int) -> None:
    write_jobs(tmp_path / "jobs.jsonl", items(1))
    finished = subprocess.run(
        [sys.executable, "-c", WITHOUT_RAY, *command("r.jsonl", "--engine", engine)],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    assert finished.returncode == code, finished.stderr
    if engine == "ray":
        assert "Ray is not installed" in finished.stderr
        assert "pip install 'vtc-cli[ray]'" in finished.stderr


@pytest.mark.parametrize(
    "error",
    [
        errors.ModelError("no such folder", where="x", allowed="y", hint="z"),
        errors.RecipeError([errors.VtcError("a", where="b"), errors.VtcError("c")], where="d"),
        errors.MemoryExhaustedError("all gone"),
    ],
)
def test_errors_travel(error: errors.VtcError) -> None:
    again = unpacked(json.loads(json.dumps(packed(error))))
    assert type(again) is type(error) and again.exit_code == error.exit_code
    assert str(again) == str(error) and again.rows() == error.rows()


COMPARED = ["--recipe", "fastv,h2o", "--budget", "64", "--limit", "8", "--json"]


@needs_ray
@pytest.mark.slow
def test_a_comparison_on_a_cluster_is_the_local_one_though_a_worker_dies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["compare", "--data", str(EVAL), *COMPARED]
    ray = ["-o", "ray.jsonl", "--engine", "ray", "--workers", "2"]
    cluster = started(tmp_path, *command, *ray)
    wait_for(tmp_path / "ray.jsonl", 3, cluster)
    os.kill(workers_below(cluster.pid)[0], signal.SIGKILL)
    out, err = cluster.communicate(timeout=300)
    assert cluster.returncode == 0 and "a worker died (killed or crashed)" in err, err
    local = tmp_path / "local.jsonl"
    assert run_command_line([*command, "-o", str(local), "-q"]) == 0
    mine, theirs = json.loads(out), json.loads(capsys.readouterr().out)
    assert [arm["accuracy"] for arm in mine["arms"]] == [arm["accuracy"] for arm in theirs["arms"]]
    there, here = passes_of(tmp_path / "ray.jsonl"), passes_of(local)
    assert there.keys() == here.keys() and len(here) == 8 * (1 + 2 + 2 * 4)
    for key, line in here.items():
        assert there[key].pop("near") == pytest.approx(line.pop("near"), rel=1e-4, abs=1e-6)
        assert there[key] == line
