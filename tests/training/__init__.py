"""Tests of the generator, the training code and the shipped checkpoint."""
