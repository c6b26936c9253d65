"""The pure parts of the tenant store."""
