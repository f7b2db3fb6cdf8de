"""A server for one model: an API and a page. Needs aiohttp; nothing here may import torch."""
