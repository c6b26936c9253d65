"""The WireGuard mesh: who peers with whom, and which path a peer's address takes."""
