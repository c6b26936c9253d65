"""What can be read off a node. `None` always means unknown, never absent."""
