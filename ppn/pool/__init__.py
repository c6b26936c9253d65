"""How a node's memory and CPU are shared: the capability ledger and what it grants."""
