"""Single figures on which decisions of the design rest. One module measures each."""
