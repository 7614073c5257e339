"""The JSON Schema of a result, shipped so that scripts can check what they read."""

from __future__ import annotations

import json
from pathlib import Path

from vtc_cli.report.result import Result

SCHEMA_FILE = Path(__file__).with_name("result.schema.json")


def schema_text() -> str:
    """The schema as the file holds it."""
    return json.dumps(Result.model_json_schema(), indent=2, sort_keys=True) + "\n"


def write_schema() -> None:
    """Renew the shipped file after a change of the models."""
    SCHEMA_FILE.write_text(schema_text(), encoding="utf-8")


if __name__ == "__main__":
    write_schema()
