"""What reconciliation and the watch over alerts are told at onboarding."""

from __future__ import annotations

from ipaddress import IPv4Address
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from ppn.errors import PpnError
from ppn.pool.tls import NODE_TRUST
from ppn.settings import read_model

PATH = "/etc/ppn/reconcile.json"
STATE = "/var/lib/ppn-reconcile"
NAME_PATTERN = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
URL_PATTERN = r"^https?://[^\s/?#]+$"
# What a header of a mail may hold: nothing that begins another one.
MAIL_PATTERN = r"^[^\s@<>,;:]{1,64}@[^\s@<>,;:]{1,255}$"

SinkName = Annotated[str, Field(pattern=NAME_PATTERN)]
Url = Annotated[str, Field(pattern=URL_PATTERN)]
Mail = Annotated[str, Field(pattern=MAIL_PATTERN)]


class Closed(BaseModel):
    """A part of the settings: no field that is unknown."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Webhook(Closed):
    """Notices as JSON by HTTP POST.

    Args:
        name: of the sink.
        url: where to; any status of 200 to 299 means taken.
        token_file: holds a bearer token, mode 0600; none is sent without it.
        trust: authorities of the server's certificate; the system's when None.
    """

    kind: Literal["webhook"] = "webhook"
    name: SinkName
    url: str = Field(pattern=r"^https?://\S+$")
    token_file: Path | None = None
    trust: Path | None = None


class MailServer(Closed):
    """Notices by mail.

    Args:
        name: of the sink.
        host, port: of the mail server.
        encryption: `starttls`, `tls` from the first byte, or `none` on a network of one's own.
        sender, recipients: addresses.
        user, password_file: to log in with; the file has mode 0600.
        trust: authorities of the server's certificate; the system's when None.
    """

    kind: Literal["mail"] = "mail"
    name: SinkName
    host: str = Field(pattern=r"^[A-Za-z0-9.:-]+$")
    port: int = Field(default=587, ge=1, le=65535)
    encryption: Literal["starttls", "tls", "none"] = "starttls"
    sender: Mail
    recipients: Annotated[tuple[Mail, ...], Field(min_length=1, max_length=32)]
    user: str | None = None
    password_file: Path | None = None
    trust: Path | None = None


class LinesFile(Closed):
    """Notices as JSON lines at the end of a file.

    Args:
        name: of the sink.
        path: the file; its folder exists and may be written to.
    """

    kind: Literal["file"] = "file"
    name: SinkName
    path: Path


Sink = Annotated[Webhook | MailServer | LinesFile, Field(discriminator="kind")]


def _differ(sinks: tuple[Sink, ...]) -> tuple[Sink, ...]:
    """Sinks of which each has a name of its own: what it is owed is kept by that."""
    if len({sink.name for sink in sinks}) < len(sinks):
        raise ValueError("two sinks have one name")
    return sinks


Sinks = Annotated[tuple[Sink, ...], Field(max_length=16), AfterValidator(_differ)]


class ReconcileSettings(Closed):
    """What reconciliation is told by the inventory.

    Args:
        name: the node it runs on.
        address: that node's mesh address, which the others know it by.
        controllers: base URLs of all controllers, its own first.
        tenant_proxies: base URLs of all tenant proxies; none in a pool without customers.
        nodes: the hypervisors of the inventory.
        trust: the authorities whose tenant proxies it trusts.
        state: the folder with its key, its reports and the alerts.
        keep_days: how long each report is kept.
        settle_seconds: what differs is looked at again after this, and reported if it still does.
        sinks: who is told of alerts.
    """

    name: str
    address: IPv4Address
    controllers: Annotated[tuple[Url, ...], Field(min_length=1, max_length=16)]
    tenant_proxies: Annotated[tuple[Url, ...], Field(max_length=16)] = ()
    nodes: Annotated[tuple[str, ...], Field(max_length=65536)] = ()
    trust: Path = Path(NODE_TRUST)
    state: Path = Path(STATE)
    keep_days: int = Field(default=400, ge=1, le=36500)
    settle_seconds: float = Field(default=45.0, ge=0, le=600)
    sinks: Sinks = ()


class NotConfigured(PpnError):
    """This machine does not reconcile."""

    code = "not_configured"


def read_settings(path: Path) -> ReconcileSettings:
    """The settings of reconciliation.

    Raises:
        NotConfigured: there are none here.
        SettingsDamaged: unreadable, or something in them is wrong.
    """
    found = read_model(path, ReconcileSettings)
    if found is None:
        raise NotConfigured(
            f"there is no {path}: this machine does not reconcile",
            hint="run it on the first controller of the inventory, or name a file with --settings",
        )
    return found
