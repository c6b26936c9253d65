"""What the descriptions of the HTTP services, of controllers and tenant proxies, have in common."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Header, Path

from ppn.host.spec import DISK_PATTERN, NAME_PATTERN
from ppn.wire.problems import MEDIA_TYPE, ProblemBody

PROBLEMS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ProblemBody},
    "5XX": {"model": ProblemBody},
}
KEY_PATTERN = r"^[!-~]{1,128}$"

VmName = Annotated[str, Path(pattern=NAME_PATTERN)]
DiskName = Annotated[str, Path(pattern=DISK_PATTERN)]
Key = Annotated[str | None, Header(alias="Idempotency-Key", pattern=KEY_PATTERN)]


def with_problems(description: dict[str, Any]) -> dict[str, Any]:
    """The description with errors as they are sent: problem bodies, and 400 where FastAPI has 422.

    Args:
        description: as FastAPI makes it; changed in place.
    """
    for operations in description["paths"].values():
        for operation in operations.values():
            operation["responses"].pop("422", None)
            for status, response in operation["responses"].items():
                content = response.get("content", {})
                if status in ("4XX", "5XX") and "application/json" in content:
                    content[MEDIA_TYPE] = content.pop("application/json")
    for unused in ("HTTPValidationError", "ValidationError"):
        description["components"]["schemas"].pop(unused, None)
    return description
