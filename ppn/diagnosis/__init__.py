"""From what was found out about a VM or a node to the causes and the next steps: pure (CLI-04)."""
