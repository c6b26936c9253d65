"""Tests of reconciliation's pure parts."""
