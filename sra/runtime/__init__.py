"""Jobs, processes, precision and random streams."""
