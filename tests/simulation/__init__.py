"""The pool on a virtual clock: production decisions, everything else made of chance."""
