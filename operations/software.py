"""The operation that puts ppn's own software on a node, without a network."""

from __future__ import annotations

from collections.abc import Generator

from pyinfra import host
from pyinfra.api import (
    FileUploadCommand,
    FunctionCommand,
    QuoteString,
    StringCommand,
    operation,
)

from facts.software import InstalledSoftware
from operations.failure import unreadable
from operations.files import File

FOLDER = "/opt/ppn"
MARKER = f"{FOLDER}/venv/INSTALLED"

# The environment is complete before `venv` points at it, so a cut leaves the old one in use.
# Bytecode is made now: services run as users who may not write it later.
SCRIPT = r"""set -eu
digest=$1; new="venv-$digest"; cd /opt/ppn
rm -rf "$new"
python3 -m venv --system-site-packages --without-pip "$new"
site=$("$new/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
tar -xf "$digest.tar.gz" --no-same-owner -C "$site"
printf '%s\n' '#!/opt/ppn/venv/bin/python' 'import sys' 'from ppn.cli import main' \
  'sys.exit(main())' > "$new/bin/ppn"
chmod 0755 "$new/bin/ppn"
"$new/bin/python" -m compileall -q -x 'pygments/(lexers|styles)/' "$site"
echo "$digest" > "$new/INSTALLED"
sync -f .
ln -sfn "$new" venv.new; mv -T venv.new venv
ln -sfn /opt/ppn/venv/bin/ppn /usr/local/bin/ppn
for old in venv-* *.tar.gz; do [ "$old" = "$new" ] || rm -rf "$old"; done"""


def marker(digest: str) -> dict[str, File]:
    """The file that tells which software is installed, for units that restart after it."""
    return {MARKER: File(f"{digest}\n")}


@operation()
def installed(
    archive: str, digest: str
) -> Generator[StringCommand | FunctionCommand | FileUploadCommand, None, None]:
    """Declare which build of ppn a node runs, in `/opt/ppn/venv`.

    + archive: ppn with all it needs, unpacked for a node: a tar archive on this machine.
    + digest: its name, as recorded on the node once it is installed.

    **Example:**

    .. code:: python

        software.installed(name="ppn", archive="ppn.tar.gz", digest="5f0c")
    """
    actual = host.get_fact(InstalledSoftware)
    if actual is None:
        yield unreadable("which build of ppn is installed")
        return
    if actual == digest:
        host.noop(f"build {digest} is installed")
        return
    yield StringCommand("mkdir", "-p", FOLDER)
    yield FileUploadCommand(archive, f"{FOLDER}/{digest}.tar.gz")
    yield StringCommand("sh", "-c", QuoteString(SCRIPT), "ppn-install", QuoteString(digest))
