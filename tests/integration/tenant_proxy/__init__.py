"""The tenant proxy as a process, with real stores, real logs and real HTTP on both sides."""
