"""Blocks of `params.yaml` whose class hangs on one of their keys (`source`, `kind`)."""
