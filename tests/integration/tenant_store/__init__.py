"""The tenant store on its real databases."""
