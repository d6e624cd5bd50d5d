"""The error family of border0.

Every room derives its own `ProtocolError` from the one here, so that an adapter can turn any
remote garbage into one log event and a close. Misuse by our own code raises `ValueError`.
"""


class Border0Error(Exception):
    """Base of every error that border0 raises on purpose; its text is fit for a user."""


class ProtocolError(Border0Error):
    """A remote party sent bytes that its protocol does not allow."""


class ConfigError(Border0Error):
    """A configuration file or command line is wrong; the text names file, key and remedy."""
