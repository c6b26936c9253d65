"""Texts that others may have written, for terminals, mails and logs."""

from __future__ import annotations


def printable(text: str) -> str:
    """A text as one line: a strange file, or a customer's VM, may be called anything."""
    return "".join(sign if sign.isprintable() else "?" for sign in text)
