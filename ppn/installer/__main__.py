"""`python -m ppn.installer`: the installer, on a machine that was started from the image."""

from __future__ import annotations

from ppn.installer.app import main

if __name__ == "__main__":
    main()
