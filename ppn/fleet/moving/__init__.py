"""Moves of VMs as a controller drives them: what is next, and who is told so."""
