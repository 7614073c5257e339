"""Results become tables, JSON and pictures."""
