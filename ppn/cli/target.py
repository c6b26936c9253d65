"""Whom a command asks: a controller over the mesh, or a tenant proxy with a token (CLI-02)."""

from __future__ import annotations

import inspect
import os
import socket
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints
from urllib.parse import urlsplit

import typer

from ppn.errors import PpnError, Refusal

if TYPE_CHECKING:
    import ssl

# Where nodes have it; elsewhere it is named.
TRUST = Path("/etc/ppn/tls/trust.crt")
TOKEN_BYTES = 4096

Controller = Annotated[
    str | None,
    typer.Option(
        "--controller",
        envvar="PPN_CONTROLLER",
        metavar="URL",
        help="A controller, for example http://10.8.0.1:9203; this node's own when not given.",
    ),
]
Proxy = Annotated[
    str | None,
    typer.Option(
        "--proxy",
        envvar="PPN_PROXY",
        metavar="URL",
        help="A tenant proxy instead, for example https://10.8.0.1:9221; needs a token file.",
    ),
]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        "--token-file",
        envvar="PPN_TOKEN_FILE",
        help="The file that holds the tenant's token; only its owner may read it.",
    ),
]
Ca = Annotated[
    Path,
    typer.Option(
        "--ca",
        envvar="PPN_CA_CERTIFICATE",
        help="The certificate of the pool's authority; nobody else's server is believed.",
    ),
]
Command = Callable[..., None]


@dataclass(frozen=True)
class Target:
    """Who is asked, and with what.

    Args:
        url: of the service, without the version.
        is_proxy: a tenant proxy; else a controller.
        token: shown to a tenant proxy; never printed.
        context: what TLS is spoken with; None for plain HTTP inside the mesh.
    """

    url: str
    is_proxy: bool = False
    token: str = field(default="", repr=False)
    context: ssl.SSLContext | None = field(default=None, repr=False)

    def ask(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        seconds: float | None = None,
    ) -> Any:
        """Send a request and return what is answered.

        Args:
            method: of HTTP.
            path: behind the version.
            body: JSON.
            query: fields behind the question mark.
            headers: beyond the usual ones.
            seconds: the longest to wait; long enough for a VM to be made when not given.

        Raises:
            PpnError: no answer, or the service's own refusal or failure.
        """
        # Imported here: reading help must not load an HTTP library.
        from ppn.fleet.client import SECONDS, ask

        given = {**(headers or {})}
        if self.token:
            given["Authorization"] = f"Bearer {self.token}"
        return ask(
            self.url,
            method,
            path,
            body=body,
            query=query,
            headers=given,
            context=self.context,
            seconds=seconds or SECONDS,
        )


def asks_pool(command: Command) -> Command:
    """Give a command the options that name a controller or a tenant proxy.

    Args:
        command: takes a `Target` first.
    """
    options = {"controller": Controller, "proxy": Proxy, "token_file": TokenFile, "ca": Ca}
    return _with_options(command, options)


def asks_controller(command: Command) -> Command:
    """Give a command the option that names a controller.

    Args:
        command: takes a `Target` first.
    """
    return _with_options(command, {"controller": Controller})


def _with_options(command: Command, options: Mapping[str, Any]) -> Command:
    hints = get_type_hints(command, include_extras=True)
    own = list(inspect.signature(command).parameters.values())[1:]
    defaults = {"ca": TRUST}

    def run(**given: Any) -> None:
        chosen = {name: given.pop(name) for name in options}
        command(target_of(**chosen), **given)

    keyword = inspect.Parameter.KEYWORD_ONLY
    added = [
        inspect.Parameter(name, keyword, default=defaults.get(name), annotation=kind)
        for name, kind in options.items()
    ]
    kept = [one.replace(kind=keyword, annotation=hints[one.name]) for one in own]
    signature = inspect.Signature([*kept, *added])
    run.__signature__ = signature  # type: ignore[attr-defined]  # what typer reads
    run.__annotations__ = {one.name: one.annotation for one in (*kept, *added)}
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    return run


def target_of(
    controller: str | None = None,
    proxy: str | None = None,
    token_file: Path | None = None,
    ca: Path = TRUST,
) -> Target:
    """Whom to ask, judged before anything is sent.

    Args:
        controller: its URL; this machine's own when neither is given.
        proxy: a tenant proxy's URL.
        token_file: holds the tenant's token.
        ca: the authority whose servers are believed.

    Raises:
        typer.BadParameter: both a controller and a proxy, or a proxy without a token.
        Refusal: `plain_http`.
        PpnError: the token or the certificate cannot be read, or no controller runs here.
    """
    if proxy is not None and controller is not None:
        raise typer.BadParameter("name a controller or a tenant proxy, not both")
    if proxy is not None:
        if token_file is None:
            raise typer.BadParameter("a tenant proxy needs --token-file or PPN_TOKEN_FILE")
        check_url(proxy, https_only=True)
        return Target(proxy.rstrip("/"), True, read_token(token_file), _context(ca))
    if controller is None:
        from ppn.fleet.client import own_controller

        return Target(own_controller())
    check_url(controller)
    secure = urlsplit(controller).scheme == "https"
    return Target(controller.rstrip("/"), context=_context(ca) if secure else None)


def check_url(
    url: str, *, https_only: bool = False, source: Callable[[IPv4Address], str] | None = None
) -> None:
    """Refuse a way that others could listen on: plain HTTP to anywhere but the mesh.

    Args:
        url: of the service.
        https_only: a token is shown there.
        source: which of this machine's addresses a packet to another one would come from.

    Raises:
        typer.BadParameter: no URL of a service.
        Refusal: `plain_http`.
    """
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and bool(parts.hostname)
        _ = parts.port
    except ValueError:
        known = False
    if not known or parts.path not in ("", "/") or parts.query or parts.username is not None:
        raise typer.BadParameter(f"{url!r} is no URL like https://10.8.0.1:9221")
    if parts.scheme == "https":
        return
    host = parts.hostname or ""
    if https_only:
        raise plain_http(url, "a token is never sent over plain HTTP")
    try:
        address = IPv4Address(host)
    except ValueError as error:
        raise plain_http(
            url, f"{host} is a name, and names can be made to lead elsewhere"
        ) from error
    if address.is_loopback:
        # It never leaves this machine.
        return
    mesh = mesh_range()
    if address not in mesh:
        raise plain_http(url, f"{host} is no address of the mesh {mesh}")
    own = (source or source_address)(address)
    if own and IPv4Address(own) not in mesh:
        raise plain_http(url, f"this machine would ask from {own}, which is not in the mesh")


def plain_http(url: str, why: str) -> Refusal:
    """The refusal of a way that others could listen on."""
    return Refusal(
        f"{url} is not asked over plain HTTP: {why}",
        code="plain_http",
        constraint="TLS, or the mesh",
        hint="use https://, or ask from a machine of the mesh (PPN_MESH_RANGE says which it is)",
    )


def mesh_range() -> IPv4Network:
    """What mesh addresses are from: PPN_MESH_RANGE, else this node's, else the usual range.

    Raises:
        typer.BadParameter: PPN_MESH_RANGE is no network.
    """
    from ppn.inventory import DEFAULT_RANGE
    from ppn.mesh.paths import MeshPaths

    if given := os.environ.get("PPN_MESH_RANGE"):
        try:
            return IPv4Network(given)
        except ValueError as error:
            raise typer.BadParameter(f"PPN_MESH_RANGE: {error}") from error
    paths = MeshPaths.from_environment()
    if paths.config.exists():
        from ppn.mesh.tunnels import load_config

        return load_config(paths).network
    return IPv4Network(DEFAULT_RANGE)


def source_address(address: IPv4Address) -> str:
    """Which of this machine's addresses a packet to another one would come from; empty if none.

    Args:
        address: of the other one; nothing is sent to it.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
        try:
            channel.connect((str(address), 9))
        except OSError:
            return ""
        return str(channel.getsockname()[0])


def read_token(path: Path) -> str:
    """A tenant's token, from a file that nobody else may read.

    Raises:
        PpnError: `token_unreadable`: missing, open to others, or no token.
    """
    unreadable = partial(PpnError, code="token_unreadable")
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(TOKEN_BYTES)
    except OSError as error:
        raise unreadable(f"cannot read {path}: {error.strerror}") from error
    if stat.S_ISREG(mode) and mode & 0o077:
        raise unreadable(f"others may read {path}", hint=f"chmod 600 {path}")
    text = content.decode("ascii", errors="replace").strip()
    if not text.startswith("ppn_") or not text.isascii() or len(text.split()) != 1:
        raise unreadable(f"{path} holds no token", hint="it holds one line, ppn_…")
    return text


def _context(ca: Path) -> ssl.SSLContext:
    from ppn.pool.tls import trusting_context

    return trusting_context(ca)
