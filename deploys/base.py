"""What every node of the pool has: packages, service users and the ppn software."""

from __future__ import annotations

from pyinfra.api import deploy

from deploys.wheelhouse import Wheelhouse
from operations import packages, software, users

PACKAGES = ["python3", "util-linux"]
USERS = ["ppn-mesh"]


@deploy("Base")
def base(wheels: Wheelhouse) -> None:
    """Install what all roles build on.

    Args:
        wheels: the node software, locked, for this node's Python.
    """
    packages.installed(name="Packages of every node", packages=PACKAGES)
    users.system(name="Users of the services", users=USERS)
    software.installed(
        name="ppn",
        archive=str(wheels.release.archive),
        digest=wheels.release.digest,
        dependencies=str(wheels.dependencies.archive),
        dependencies_digest=wheels.dependencies.digest,
    )
