"""Push: every node holds its pruned map, kept new over one WebSocket with revisions."""
