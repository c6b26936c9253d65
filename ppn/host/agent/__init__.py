"""The host agent: the node's only spawn authority, behind a Unix socket."""
