"""Makes `tiny-video`, the sibling of `tiny` that takes frames: `python -m training.video`."""
