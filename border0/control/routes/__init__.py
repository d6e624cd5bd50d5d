"""The routes of `/api/v1`, one module per noun; `desk` is how they read and change the store."""
