"""Small ISO 9660 volumes, made in memory; nothing is mounted."""

from __future__ import annotations

import io
from collections.abc import Mapping

from pycdlib import PyCdlib


def volume(label: str, files: Mapping[str, bytes]) -> bytes:
    """A volume with Rock Ridge and Joliet names, all files in its root.

    Args:
        label: its name, by which it is found.
        files: content by name.
    """
    made = PyCdlib()
    made.new(interchange_level=3, vol_ident=label, joliet=3, rock_ridge="1.09")
    for name, content in files.items():
        plain = "".join(c for c in name.upper() if c.isalnum())
        made.add_fp(
            io.BytesIO(content),
            len(content),
            f"/{plain}.;1",
            rr_name=name,
            joliet_path=f"/{name}",
        )
    image = io.BytesIO()
    made.write_fp(image)
    made.close()
    return image.getvalue()
