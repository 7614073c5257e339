"""The comparison of recipes: its file of rows, its summary and what a person sees of it."""
