"""Using a model: ONNX Runtime, NumPy and Pillow only; nothing here may import torch."""
