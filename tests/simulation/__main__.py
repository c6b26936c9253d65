"""`python -m tests.simulation SEED`: one schedule, told step by step."""

from __future__ import annotations

import sys

from tests.simulation.world import World

if __name__ == "__main__":
    World(int(sys.argv[1]), print).run()
