"""Real Debian nodes on this machine, for trying the pool and for its tests."""
