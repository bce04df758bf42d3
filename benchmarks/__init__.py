"""What the speed claims rest on: run with `make bench`."""
