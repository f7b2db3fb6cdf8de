"""From a checkpoint to a product: fold, export, gate, latency."""
