"""Local servers that speak the published schemas of the remote APIs, faults included."""
