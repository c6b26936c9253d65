"""A tenant proxy's settings, written at onboarding; `ppn tenant` on its node reads them too."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ppn.errors import PpnError
from ppn.pool.tls import NODE_CERTIFICATE

PATH = "/etc/ppn/tenant.json"
DEFAULT_PORT = 9221
FLEET_PORT = 9203
DEFAULT_STORE = "sqlite:////var/lib/ppn-tenant/tenants.db"


class SettingsDamaged(PpnError):
    """Settings that cannot be read; nothing is guessed in their place."""

    code = "settings_damaged"


class TenantSettings(BaseModel):
    """What a tenant proxy is told by the inventory.

    Args:
        name: the node it runs on.
        address: the mesh address it listens on, and asks from.
        mesh_range: what mesh addresses are from.
        port: the TCP port it listens on.
        controllers: mesh addresses of every fleet controller.
        controller_port: theirs.
        store: URL of the tenant store; all proxies of a pool have the same.
        audit: the folder of its audit log, in a folder that belongs to the proxy's user.
        audit_key: the private key of its audit log, made there with it.
        certificate: its server certificate.
        request_seconds: the longest a customer waits for an answer.
        lease_seconds: the longest a request goes on, whoever waits; then the sweeper looks.
        sweep_seconds: between two looks of the sweeper.
        development: allows a loopback address to listen on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    address: IPv4Address
    mesh_range: IPv4Network
    port: int = Field(default=DEFAULT_PORT, ge=1, le=65535)
    controllers: Annotated[tuple[IPv4Address, ...], Field(min_length=1, max_length=64)]
    controller_port: int = Field(default=FLEET_PORT, ge=1, le=65535)
    store: str = DEFAULT_STORE
    audit: Path = Path("/var/lib/ppn-tenant/audit")
    audit_key: Path = Path("/var/lib/ppn-tenant/audit.key")
    certificate: Path = Path(NODE_CERTIFICATE)
    request_seconds: float = Field(default=120.0, gt=0, le=600)
    lease_seconds: float = Field(default=300.0, gt=0, le=3600)
    sweep_seconds: float = Field(default=10.0, gt=0, le=600)
    development: bool = False


def read_settings(path: Path) -> TenantSettings:
    """The tenant proxy's settings.

    Raises:
        SettingsDamaged: unreadable, or something in them is wrong.
    """
    try:
        return TenantSettings.model_validate_json(path.read_bytes())
    except OSError as error:
        raise SettingsDamaged(
            f"cannot read {path}: {error.strerror}", hint="is this a tenant proxy's node?"
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "content"
        raise SettingsDamaged(
            f"{path}: {where}: {first['msg']}", hint="run the pool's deploy again"
        ) from error
