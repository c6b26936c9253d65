"""Reconciliation against real services."""
