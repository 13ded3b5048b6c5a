"""Files that the suite uses but does not ship: `catalogue` (what and where, with hashes), `download`."""
