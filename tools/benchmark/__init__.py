"""The mesh beside what one would build instead: the same load, in one run, on the same processors."""
