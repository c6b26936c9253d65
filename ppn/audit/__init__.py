"""The audit log: who changed what, in a Merkle log that cannot be altered unnoticed."""
