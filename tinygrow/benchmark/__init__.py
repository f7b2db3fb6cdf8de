"""Speed of products, against each other and against PyTorch."""
