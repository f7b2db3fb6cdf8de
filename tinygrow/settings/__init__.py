"""Settings as frozen dataclasses, free of torch, so that a command line can check them at once.

Each default is the paper's value where the paper (or its authors' code) has one. `params.yaml`
states every key all the same: what is not written there cannot be overridden or tracked.
"""
