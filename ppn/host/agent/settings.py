"""What the host agent is told at onboarding."""

from __future__ import annotations

import pwd
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from ppn.errors import PpnError
from ppn.host.paths import Paths
from ppn.pool.tls import (
    AGENT_CERTIFICATE,
    AGENT_KEY,
    NODE_CERTIFICATE,
    NODE_KEY,
    NODE_TRUST,
    TlsFiles,
)
from ppn.settings import read_model
from ppn.wire.model import NodeName

URL_PATTERN = r"^https?://[^/?#\s]+$"


class AgentUnavailable(PpnError):
    """The host agent cannot do its work, and says why."""

    code = "agent_unavailable"


class AgentSettings(BaseModel):
    """The host agent's own settings.

    Args:
        node: the node's name in the inventory.
        controllers: base URLs of the fleet controllers that hear of this node.
        proxy_user: the user the node proxy runs as; without one only root is served.
        heartbeat_seconds: how often the controllers hear of this node when nothing changes.
        key, certificate, trust: what it speaks TLS with to the node that a VM moves to.
        own_key, own_certificate: what it vouches with for VMs that move here; no other service of
            the node has that key.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    node: NodeName
    controllers: Annotated[
        tuple[Annotated[str, Field(pattern=URL_PATTERN)], ...],
        Field(strict=False, max_length=16),
    ] = ()
    proxy_user: str | None = None
    heartbeat_seconds: float = Field(default=10.0, ge=0.05, le=60)
    key: str = NODE_KEY
    certificate: str = NODE_CERTIFICATE
    trust: str = NODE_TRUST
    own_key: str = AGENT_KEY
    own_certificate: str = AGENT_CERTIFICATE

    def tls(self) -> TlsFiles:
        """What to speak TLS with."""
        return TlsFiles(Path(self.key), Path(self.certificate), Path(self.trust))

    def own(self) -> TlsFiles:
        """What to vouch with."""
        return TlsFiles(Path(self.own_key), Path(self.own_certificate), Path(self.trust))


def read_agent_settings(paths: Paths) -> AgentSettings:
    """The agent's settings.

    Raises:
        AgentUnavailable: there is no such file.
        SettingsDamaged: unreadable, no valid settings, or an unknown field.
    """
    settings = read_model(paths.agent_settings, AgentSettings)
    if settings is None:
        raise AgentUnavailable(
            f"{paths.agent_settings} does not exist",
            hint="run the pool's deploy for this node",
        )
    return settings


def proxy_ids(user: str | None) -> tuple[int | None, int | None]:
    """User and group id of the node proxy; None for both without a user.

    Raises:
        AgentUnavailable: the system knows no such user.
    """
    if user is None:
        return None, None
    try:
        entry = pwd.getpwnam(user)
    except KeyError as error:
        raise AgentUnavailable(
            f"the system knows no user {user}, whom the node proxy runs as",
            hint="run the pool's deploy for this node",
        ) from error
    return entry.pw_uid, entry.pw_gid
