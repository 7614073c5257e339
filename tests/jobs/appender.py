"""Goes through jobs that need no model and appends a line for each that is not done; may be killed.

Arguments: the results file, how many jobs. Only the file's own code is loaded, so that it starts in
a moment.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from vtc_cli.jobs.job import Job, Settings, make_job
from vtc_cli.jobs.progressed import Progressed
from vtc_cli.jobs.results_file import ResultsFile
from vtc_cli.media.frame_options import FrameOptions

SETTINGS = Settings(frames=FrameOptions())


def job(number: int) -> Job:
    values = {"id": f"job-{number}", "media": f"{number}.png", "question": "what?"}
    return make_job(number, values, SETTINGS, "0" * 64, values["media"])


def line(job: Job, error: object = None) -> str:
    block = {"line": job.line, "key": job.key, "asked": job.settings.asked(job.recipe_sha256)}
    whole = {"id": job.id, "job": block, "error": error, "text": "x" * (job.line * 977 % 9000)}
    return json.dumps(whole, separators=(",", ":"))


def main(path: str, count: int) -> None:
    with ResultsFile(Path(path)) as results:
        progressed = Progressed(results)
        progressed.check_settings(SETTINGS)
        print("ready", flush=True)
        for number in range(1, count + 1):
            if not progressed.has(job(number)):
                results.append(line(job(number)))
    print("done", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
