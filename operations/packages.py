"""Operations on Debian packages."""

from __future__ import annotations

from collections.abc import Generator

from pyinfra import host
from pyinfra.api import FunctionCommand, QuoteString, StringCommand, operation

from facts.packages import Installed
from operations.failure import unreadable

APT = (
    "env DEBIAN_FRONTEND=noninteractive apt-get -y -q --no-install-recommends"
    " -o DPkg::Lock::Timeout=120"
)


@operation()
def installed(packages: list[str]) -> Generator[StringCommand | FunctionCommand, None, None]:
    """Declare that Debian packages are installed; the package lists are read only when one is not.

    + packages: names as apt knows them, without versions.

    **Example:**

    .. code:: python

        packages.installed(name="Firewall", packages=["nftables"])
    """
    actual = host.get_fact(Installed, packages=packages)
    if actual is None:
        yield unreadable("the package database")
        return
    missing = [package for package in packages if package not in actual]
    if not missing:
        host.noop(f"{len(packages)} packages are installed")
        return
    yield StringCommand(APT, "update")
    yield StringCommand(APT, "install", "--", *(QuoteString(package) for package in missing))
