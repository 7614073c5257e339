"""Pure functions of the trace."""
