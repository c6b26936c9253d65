"""How the tenant store's tables came to be, step by step."""
