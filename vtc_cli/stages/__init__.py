"""One file a paper; tensor arithmetic only."""
