"""The Twisted and Conch side of the SSH proxy."""
