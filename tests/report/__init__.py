"""Tests of results, reports and overlays."""
