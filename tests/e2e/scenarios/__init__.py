"""The scenarios, each a function of a running mesh; the test modules run them on each kind of mesh."""
