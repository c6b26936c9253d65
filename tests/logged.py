"""What a process that tests started has logged so far."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def logged(path: Path, **fields: Any) -> list[dict[str, Any]]:
    """The lines of a log file that are JSON and have these fields.

    The last line counts once it is whole: a reader may meet it half written.

    Args:
        path: of the file; no lines while there is none.
        fields: each with the value that a line must have.
    """
    if not path.exists():
        return []
    whole = path.read_bytes().split(b"\n")[:-1]
    found = [json.loads(line) for line in whole if line.startswith(b"{")]
    return [line for line in found if fields.items() <= line.items()]
