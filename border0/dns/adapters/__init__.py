"""Where names are asked for: port 53 of addresses on the user-space stack."""
