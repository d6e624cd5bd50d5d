"""The control plane: organisation state, push, API, sign-in."""
