"""The base of every model on the wire, and the types they share."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ppn.errors import Refusal
from ppn.host.spec import NAME_PATTERN, OWNER_PATTERN, PCI_PATTERN

VERSION = 1
CORRELATION_HEADER = "Ppn-Correlation-Id"
# One correlation id travels the whole way of a request and stands in every log line.
CORRELATION_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9-]{7,63}$"
UUID_PATTERN = r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"
NODE_PATTERN = r"^[A-Za-z0-9@][A-Za-z0-9@._/-]{0,252}$"

VmId = Annotated[str, Field(pattern=NAME_PATTERN)]
Owner = Annotated[str, Field(pattern=OWNER_PATTERN)]
NodeName = Annotated[str, Field(pattern=NODE_PATTERN)]
PciAddress = Annotated[str, Field(pattern=PCI_PATTERN)]
VmUuid = Annotated[str, Field(pattern=UUID_PATTERN)]
CorrelationId = Annotated[str, Field(pattern=CORRELATION_PATTERN)]


class Wire(BaseModel):
    """A message or a part of one: immutable, nothing converted, nothing unknown accepted."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", hide_input_in_errors=True)


class Malformed(Refusal):
    """A message that breaks the contract; names every field that does."""


def malformed(error: ValidationError) -> Malformed:
    """What a validation found as one refusal; values are left out, for they may be secrets."""
    found = [
        f"{'.'.join(map(str, item['loc'])) or 'body'}: {item['msg']}"
        for item in error.errors(include_url=False, include_input=False, include_context=False)
    ]
    return Malformed(
        "the request breaks the contract: " + "; ".join(found[:20]),
        code="request_invalid",
        constraint="wire contract",
        hint="see the service's OpenAPI description",
    )
