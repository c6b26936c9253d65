"""What can be declared about a node. Each operation reads a fact, plans purely, yields the rest."""
