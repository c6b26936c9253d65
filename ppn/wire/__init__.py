"""The versioned contract: what the services say to each other and to their callers."""
