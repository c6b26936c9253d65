"""How fast ppn is against a peer, side by side in one run."""
