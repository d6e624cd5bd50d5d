"""SSH: the tunnel is the identity, policy decides each channel, what happens is recorded."""
