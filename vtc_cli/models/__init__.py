"""One adapter file a model family."""
