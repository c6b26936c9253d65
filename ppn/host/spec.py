"""What a VM shall be: the one description shared by the operator, the node and the sidecar."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    field_validator,
    model_validator,
)

from ppn.errors import Refusal

NAME_PATTERN = r"^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$"
# virtio-blk shows a guest at most 20 characters of a serial number.
DISK_PATTERN = r"^[a-z]([a-z0-9-]{0,18}[a-z0-9])?$"
IMAGE_PATTERN = r"^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$"
PCI_PATTERN = r"^[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$"
OWNER_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$"
# Files of the VM's folder that are not data disks.
RESERVED_DISK_NAMES = frozenset({"disk", "root", "seed", "serial", "sidecar"})
# Keys of cloud-config that a field of the spec already decides.
DECIDED_KEYS = frozenset({"fqdn", "hostname", "ssh_authorized_keys"})
# YAML readers take no longer key, with every character escaped, than 1024 characters.
LONGEST_KEY = 160
HOST_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")

State = Literal["running", "stopped", "absent"]
Protocol = Literal["tcp", "udp"]
# Four numbers of at most 255, each without leading zeros: one address has one text.
_NUMBER = r"(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
ADDRESS_PATTERN = rf"^({_NUMBER}\.){{3}}{_NUMBER}$"


class SpecInvalid(Refusal):
    """A VM description that breaks its own rules; carries every problem found."""


class Disk(BaseModel):
    """A data disk beside the root disk.

    Args:
        name: shown to the guest as the disk's serial number; names its file.
        size_gib: virtual size in GiB.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    name: str = Field(pattern=DISK_PATTERN)
    size_gib: int = Field(ge=1, le=65536)

    @field_validator("name")
    @classmethod
    def _not_reserved(cls, name: str) -> str:
        if name in RESERVED_DISK_NAMES:
            raise ValueError(f"{name!r} names a file of the VM itself; choose another name")
        return name


class Port(BaseModel):
    """A port of the guest that mesh nodes may reach at the node's mesh address.

    Args:
        guest: destination port in the guest.
        protocol: of the transport layer.
        host: the node's port that leads there, of its range for guests; any free one when None.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    guest: int = Field(ge=1, le=65535)
    protocol: Protocol = "tcp"
    host: int | None = Field(default=None, ge=1, le=65535)


class VmSpec(BaseModel):
    """A VM as it shall be. CPU weight and balloon minimum come from the capability ledger alone.

    Args:
        name: unique on its node.
        owner: `operator`, or the tenant the VM belongs to.
        state: what it shall be doing.
        image: folder name of a guest image on the node.
        vcpus: virtual CPUs.
        memory_mib: the most memory it can have, in MiB; what it has at boot.
        disk_gib: virtual size of the root disk in GiB.
        disks: data disks, in the order the guest finds them.
        address: of the node's VM network; any free one when None.
        ports: what mesh nodes may reach of it.
        hostname: what cloud-init calls the guest; the VM's name when not given.
        ssh_keys: public keys, one line each.
        user_data: further cloud-config for the guest.
        label: opaque to the node; kept and reported.
        cmdline_extra: added to the kernel command line of a direct-boot image.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    name: str = Field(pattern=NAME_PATTERN)
    owner: str = Field(default="operator", pattern=OWNER_PATTERN)
    state: State = "running"
    image: str = Field(pattern=IMAGE_PATTERN)
    vcpus: int = Field(ge=1, le=512)
    memory_mib: int = Field(ge=64, le=64 * 1024 * 1024)
    disk_gib: int = Field(default=1, ge=1, le=65536)
    # Python data hold lists where JSON has arrays; the parts stay strict.
    disks: Annotated[tuple[Disk, ...], Field(strict=False, max_length=16)] = ()
    address: str | None = Field(default=None, pattern=ADDRESS_PATTERN)
    ports: Annotated[tuple[Port, ...], Field(strict=False, max_length=64)] = ()
    hostname: str = Field(max_length=253)
    ssh_keys: Annotated[tuple[str, ...], Field(strict=False, max_length=64)] = ()
    user_data: dict[str, JsonValue] | None = None
    label: str = Field(default="", max_length=256)
    cmdline_extra: str = Field(default="", max_length=1024, pattern=r"^[ -~]*$")

    @model_validator(mode="before")
    @classmethod
    def _name_the_host(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and "hostname" not in data:
            return {**data, "hostname": data.get("name")}
        return data

    @field_validator("hostname")
    @classmethod
    def _check_hostname(cls, hostname: str) -> str:
        if not all(HOST_LABEL.fullmatch(label) for label in hostname.split(".")):
            raise ValueError(f"{hostname!r} is no host name (RFC 1123, lower case)")
        return hostname

    @field_validator("ssh_keys")
    @classmethod
    def _check_keys(cls, keys: tuple[str, ...]) -> tuple[str, ...]:
        for key in keys:
            if not key.isprintable() or len(key.split()) < 2:
                raise ValueError(f"{key[:40]!r} is no public key line (type, then key)")
        return keys

    @field_validator("user_data")
    @classmethod
    def _check_user_data(cls, data: dict[str, JsonValue] | None) -> dict[str, JsonValue] | None:
        if taken := sorted(DECIDED_KEYS & set(data or {})):
            raise ValueError(f"{', '.join(taken)}: use the fields hostname and ssh_keys")
        if long := next((key for key in _keys(data) if len(key) > LONGEST_KEY), None):
            raise ValueError(f"key {long[:20]!r}… is longer than {LONGEST_KEY} characters")
        return data

    @field_validator("disks")
    @classmethod
    def _check_disk_names(cls, disks: tuple[Disk, ...]) -> tuple[Disk, ...]:
        counts = Counter(disk.name for disk in disks)
        if twice := sorted(name for name, count in counts.items() if count > 1):
            raise ValueError(f"two disks are named {', '.join(twice)}; names must differ")
        return disks

    @field_validator("ports")
    @classmethod
    def _check_ports(cls, ports: tuple[Port, ...]) -> tuple[Port, ...]:
        for side, numbers in (
            ("guest", Counter((port.protocol, port.guest) for port in ports)),
            ("host", Counter((port.protocol, port.host) for port in ports if port.host)),
        ):
            if twice := sorted(f"{n}/{p}" for (p, n), count in numbers.items() if count > 1):
                raise ValueError(f"{side} port {', '.join(twice)} is named twice; name it once")
        return ports

    @property
    def promised_gib(self) -> int:
        """The most its disks can grow to on the node, in GiB."""
        return self.disk_gib + sum(disk.size_gib for disk in self.disks)

    def digest(self) -> str:
        """SHA-256 of everything but the wanted state, to see whether a domain is up to date."""
        data = self.model_dump(mode="json", exclude={"state"})
        text = json.dumps(data, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def spec_from_data(data: Mapping[str, Any]) -> VmSpec:
    """A spec from plain data such as an inventory holds.

    Raises:
        SpecInvalid: with every problem, each naming its field and value.
    """
    try:
        return VmSpec.model_validate(data)
    except ValidationError as error:
        raise _invalid(str(data.get("name", "?")), error) from error


def spec_from_json(text: str) -> VmSpec:
    """A spec from one JSON object.

    Raises:
        SpecInvalid: no JSON, or every problem, each naming its field and value.
    """
    try:
        return VmSpec.model_validate_json(text)
    except ValidationError as error:
        raise _invalid("?", error) from error


def _keys(value: JsonValue) -> Iterator[str]:
    if isinstance(value, dict):
        yield from value
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _keys(part)


def _invalid(name: str, error: ValidationError) -> SpecInvalid:
    problems = [
        f"{'.'.join(str(part) for part in item['loc']) or 'spec'}: {item['msg']}"
        # User data can hold a guest's secrets, and so can the whole object.
        + ("" if item["loc"][:1] in ((), ("user_data",)) else f" (got {item['input']!r:.60})")
        for item in error.errors()
    ]
    return SpecInvalid(
        f"vm {name}: {'; '.join(problems)}",
        code="spec_invalid",
        constraint="VM description",
        hint="correct the named fields and run again",
    )
