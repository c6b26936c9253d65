"""The tenant proxy's pure parts."""
