"""What is run, in which order, and what it proved."""
