"""Reconciliation: what the pool's parts say, compared; what differs, reported and told."""
