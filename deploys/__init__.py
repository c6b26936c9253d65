"""What a node becomes: one role per file, composed by `site.py`."""
