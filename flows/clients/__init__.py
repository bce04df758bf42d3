"""Clients of remote HTTP APIs: one core (`http.py`), and a module for each API on top of it."""
