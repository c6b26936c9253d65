"""The one error family of ppn: every refusal carries a stable code and its numbers."""

from __future__ import annotations


class PpnError(Exception):
    """Anything ppn reports to its user.

    Args:
        message: what happened, naming the object and the value.
        code: stable machine-readable name of this kind of error.
        hint: the next step a person can take; may be empty.
    """

    code = "error"
    # Of the request that met it, when a service said so: stands in the log lines of every hop.
    correlation_id = ""

    def __init__(self, message: str, *, code: str | None = None, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if code is not None:
            self.code = code

    def as_dict(self) -> dict[str, object]:
        """The error as plain data, for `--json` output and problem bodies."""
        fields: dict[str, object] = {"code": self.code, "message": self.message}
        if self.hint:
            fields["hint"] = self.hint
        if self.correlation_id:
            fields["correlation_id"] = self.correlation_id
        return fields

    def __str__(self) -> str:
        return f"{self.message} ({self.code})" + (f": {self.hint}" if self.hint else "")


class Refusal(PpnError):
    """A request that was understood and is not carried out, with the constraint that binds.

    Args:
        message: what was refused, naming the object.
        code: stable name, for example `memory_exhausted`.
        constraint: the rule or resource that binds, for example `pool memory`.
        wanted: how much was asked for, in `unit`.
        free: how much could be had, in `unit`.
        unit: for example `MiB` or `vCPU`.
        hint: the next step a person can take.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str,
        constraint: str,
        wanted: int | None = None,
        free: int | None = None,
        unit: str = "",
        hint: str = "",
    ) -> None:
        super().__init__(message, code=code, hint=hint)
        self.constraint = constraint
        self.wanted = wanted
        self.free = free
        self.unit = unit

    def as_dict(self) -> dict[str, object]:
        fields = super().as_dict() | {"constraint": self.constraint}
        if self.wanted is not None:
            fields |= {"wanted": self.wanted, "free": self.free, "unit": self.unit}
        return fields

    def __str__(self) -> str:
        numbers = ""
        if self.wanted is not None:
            numbers = f" [{self.constraint}: wanted {self.wanted}, free {self.free} {self.unit}]"
        text = f"{self.message}{numbers} ({self.code})"
        return f"{text}: {self.hint}" if self.hint else text
