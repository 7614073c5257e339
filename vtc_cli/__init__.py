"""vtc: offline experiments with visual-token compression in vision-language models."""

__version__ = "0.1.0"
