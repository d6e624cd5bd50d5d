"""From the store to the nodes: what each object says, signed, and who gets to see it."""
