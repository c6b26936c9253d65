"""What runs: the services, the host library and the `ppn` command of a private VM pool."""

import gc
import os
import sys

__version__ = "0.1.0"

# Importing is most of what a short command does, and of what a service does until it answers. What
# is imported stays; with the default of 700 the collector looks through it again and again.
gc.set_threshold(50_000)
# httpx has a command line, and would load it with the terminal library it is drawn with. None says
# that there is no such module; Python's types know nothing of that.
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]
# pydantic would read what each installed package offers, for plugins, of which there are none.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
