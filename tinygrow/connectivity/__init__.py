"""How a network is wired: paths from input to output, and what their depths say of convergence.

After *Deep Architecture Connectivity Matters for Its Convergence* (Chen et al., NeurIPS 2022).
What reads ONNX files or counts cells imports no torch.
"""
