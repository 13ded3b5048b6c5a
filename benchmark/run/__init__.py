"""Running a plan: processes, executors, heartbeat."""
