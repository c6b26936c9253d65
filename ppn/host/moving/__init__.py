"""Moves of a VM between nodes: what a node's files say, what it admits, and what goes over."""
