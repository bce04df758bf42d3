"""Where rows go: connection, slice loading, run log, embedded server."""
