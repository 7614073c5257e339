"""YAML recipes become typed plans."""
