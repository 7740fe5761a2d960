"""Write the JSON Schemas of trails, trail.schema.json and trail-journal.schema.json, from the types.

`tests/trail/test_schema.py` fails where a file is not what this would write.
"""

import json
import sys
from pathlib import Path

from holdfast.trail.schema import journal_schema, record_schema

FOLDER = Path(__file__).parent
SCHEMAS = {"trail.schema.json": record_schema, "trail-journal.schema.json": journal_schema}


def text(name: str) -> str:
    """The whole file of this name."""
    return json.dumps(SCHEMAS[name](), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for name in SCHEMAS:
        (FOLDER / name).write_text(text(name), encoding="utf-8")
        sys.stderr.write(f"wrote {FOLDER / name}\n")
