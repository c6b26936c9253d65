"""The node proxy: the only door to a node's agent, HTTP on one side and frames on the other."""
