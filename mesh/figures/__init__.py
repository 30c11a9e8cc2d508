"""Figures: the counters and measurements of a node, and how other code reads them."""
