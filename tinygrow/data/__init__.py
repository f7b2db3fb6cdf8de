"""Images, from their source to one prepared file of uint8 tensors."""
