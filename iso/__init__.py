"""How a bare node is born: its packages, its files, its root file system."""
