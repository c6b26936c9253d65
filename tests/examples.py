"""How many examples a property is tried with, as a share of what the profile says."""

from __future__ import annotations

from hypothesis import settings


def examples(share: float) -> settings:
    """More examples for a property with much to find, fewer for one that takes long.

    Args:
        share: of the profile's: 1 for as many as others have.
    """
    return settings(max_examples=max(1, round(share * settings().max_examples)))
