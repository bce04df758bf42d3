"""Where rows come from: each source yields Arrow batches in the one landing shape."""
