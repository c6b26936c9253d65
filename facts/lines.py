"""What facts share that print lines, each beginning with a word, and `end` when all is said."""

from __future__ import annotations

from collections.abc import Iterator

from pyinfra.api.exceptions import FactProcessError

# A function for scripts under `set -e`: one line for a path, what to print in front of it first:
# `absent`, or mode, owner, group, kind and digest. An unreadable file is an error of the whole
# fact rather than a file that looks absent.
STATUS = r"""status() {
  if [ ! -e "$2" ] && [ ! -L "$2" ]; then echo "$1absent $2"; return; fi
  if [ -f "$2" ] && [ ! -L "$2" ]; then
    digest=$(sha256sum < "$2"); kind=file
  else
    digest=-; kind=other
  fi
  echo "$1present $(stat -c '%a %U %G' -- "$2") $kind ${digest%% *} $2"
}"""


def whole(output: list[str], what: str) -> list[str]:
    """A script's output, if the script came to its end.

    Raises:
        FactProcessError: it is cut off.
    """
    if not output or output[-1] != "end":
        raise FactProcessError(f"the {what} script did not come to its end")
    return output


def values(output: list[str], word: str) -> Iterator[str]:
    """The rest of each line that begins with a word."""
    return (line[len(word) + 1 :] for line in output if line.startswith(f"{word} "))


def value(output: list[str], word: str) -> str | None:
    """The rest of the first line that begins with a word; `None` when there is none."""
    return next(values(output, word), None)


def key_status(output: list[str]) -> tuple[str | None, str | None]:
    """Mode and `user:group` of a private key's file from the line `key`; `None` without one."""
    found = value(output, "key")
    if found is None:
        return None, None
    mode, _, owner = found.partition(" ")
    return mode.zfill(4), owner
