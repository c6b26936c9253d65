"""Faults that are injected into a real pool, and the one command that names each."""
