"""The networks that grow: plain `torch.nn` modules, rebuilt from an `Architecture`."""
