"""Figures: what a node counts and measures, and how others read it."""
