"""A folder that runs anywhere ONNX Runtime runs."""
