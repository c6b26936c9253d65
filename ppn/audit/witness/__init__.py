"""A witness remembers how far each log was and signs no other history of it."""
