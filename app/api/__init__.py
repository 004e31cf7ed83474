"""HTTP in and out: one thin router for each resource, and the one mapping from errors to answers."""
