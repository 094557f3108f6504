"""Starts, breaks, loads and checks real clusters on loopback, with Python 3.11 and Debian's memcache clients."""
