"""The gate a product has to pass. Read in this order: `check`, `subject`, the checks, `run`."""
