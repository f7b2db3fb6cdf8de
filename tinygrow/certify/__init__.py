"""Checks the certificate of an exact compression, with numpy and onnx alone.

It shares no code with what finds stable units, removes them or writes the certificate, and asks no
solver: it reads three files and recomputes.
"""
