"""The part of PyYAML that the tests use."""

from typing import Any

def safe_load(stream: str | bytes) -> Any: ...
