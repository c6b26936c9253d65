"""Runs on the node, from standard input: writes files so that each is whole or untouched.

Sent as text to the node's own python3, so it uses the standard library alone. Input: a JSON list
of objects with path, content (text), mode (octal digits), owner, group and check (an argv in
which `{}` stands for the new file). Every file is checked before the first one is replaced.
"""

import grp
import json
import os
import pwd
import subprocess
import sys


def stage(item: dict[str, object]) -> str:
    """Write the new content beside the file it will replace; it is private until it is whole."""
    path = str(item["path"])
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    temporary = os.path.join(os.path.dirname(path), ".ppn-new." + os.path.basename(path))
    if os.path.lexists(temporary):
        os.unlink(temporary)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(str(item["content"]))
        file.flush()
        owner = pwd.getpwnam(str(item["owner"])).pw_uid
        group = grp.getgrnam(str(item["group"])).gr_gid
        os.fchown(file.fileno(), owner, group)
        os.fchmod(file.fileno(), int(str(item["mode"]), 8))
        os.fsync(file.fileno())
    return temporary


def check(item: dict[str, object], temporary: str) -> None:
    """Let the program that will read the file judge it first."""
    words = item["check"]
    if not isinstance(words, list) or not words:
        return
    argv = [str(word).replace("{}", temporary) for word in words]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode != 0:
        sys.exit(f"{item['path']}: refused by {argv[0]}: {(done.stderr or done.stdout).strip()}")


def main() -> None:
    """Stage and check all files, then move them into place."""
    items = json.load(sys.stdin)
    staged = []
    try:
        for item in items:
            staged.append((stage(item), str(item["path"])))
            check(item, staged[-1][0])
        for temporary, path in staged:
            os.replace(temporary, path)
            folder = os.open(os.path.dirname(path), os.O_RDONLY)
            os.fsync(folder)
            os.close(folder)
    finally:
        for temporary, _ in staged:
            if os.path.lexists(temporary):
                os.unlink(temporary)


main()
