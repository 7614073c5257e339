"""Runs the stages inside stock models; the only place with hooks."""
