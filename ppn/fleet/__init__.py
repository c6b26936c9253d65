"""The fleet controller: which nodes there are, where a VM goes, and what it holds there."""
