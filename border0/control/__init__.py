"""The control plane: what an organisation is, who may change it, and what its nodes are told."""
