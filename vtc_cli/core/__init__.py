"""The vocabulary shared by every station: tokens, decisions, stages, signals, traces, errors."""
