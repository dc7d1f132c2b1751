"""Bytes on disk that survive a power cut, named by their sha256."""
