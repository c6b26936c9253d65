"""Turns a bare machine into a node: runs from the provisioning image, and makes its settings."""
