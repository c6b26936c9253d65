"""How the services write their logs; they take their loggers from here, not from structlog."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def _absent(module: str) -> Iterator[None]:
    """Have a module for a block that cannot be imported."""
    before = sys.modules.get(module)
    # None says that there is no such module; Python's types know nothing of that.
    sys.modules[module] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[module]
        if before is not None:
            sys.modules[module] = before


# structlog draws tracebacks with rich where there is one, and would load it for each service. Ours
# are plain.
with _absent("rich"):
    import structlog
    from structlog.contextvars import bound_contextvars

__all__ = ["bound_contextvars", "configure_log", "get_logger"]

get_logger = structlog.get_logger


def configure_log() -> None:
    """JSON lines for the journal; colours when a person watches."""
    # As text without the values of variables, which may be secret.
    renderers: list[structlog.types.Processor] = [
        structlog.processors.format_exc_info,
        structlog.processors.JSONRenderer(),
    ]
    if sys.stderr.isatty():
        plain = structlog.dev.plain_traceback
        renderers = [structlog.dev.ConsoleRenderer(exception_formatter=plain)]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *renderers,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(20),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
