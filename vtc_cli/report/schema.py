"""The JSON Schemas of what is written, shipped so that scripts can check what they read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel

from vtc_cli.report.compare.summary import Comparison
from vtc_cli.report.compressed import CompressedReport
from vtc_cli.report.result import BatchLine, Result
from vtc_cli.report.solution import Solution

SCHEMA_FILE = Path(__file__).with_name("result.schema.json")
SCHEMAS: Mapping[Path, type[BaseModel]] = {
    SCHEMA_FILE: Result,
    Path(__file__).with_name("batch.schema.json"): BatchLine,
    Path(__file__).with_name("compressed.schema.json"): CompressedReport,
    Path(__file__).with_name("comparison.schema.json"): Comparison,
    Path(__file__).with_name("solution.schema.json"): Solution,
}


def schema_text(model: type[BaseModel] = Result) -> str:
    """The schema of `model` as its file holds it."""
    return json.dumps(model.model_json_schema(), indent=2, sort_keys=True) + "\n"


def write_schemas() -> None:
    """Renew the shipped files after a change of the models."""
    for path, model in SCHEMAS.items():
        path.write_text(schema_text(model), encoding="utf-8")


if __name__ == "__main__":
    write_schemas()
