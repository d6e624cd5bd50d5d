"""The files of the audit room."""
