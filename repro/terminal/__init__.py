"""The terminal of a run: what is shown before it, meanwhile, and at its end."""
