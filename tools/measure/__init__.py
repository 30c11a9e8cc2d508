"""Single figures behind the decisions of the design, each measured by a module of its own."""
