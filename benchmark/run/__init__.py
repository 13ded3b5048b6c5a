"""Running a plan: `runner` runs the stages, `executor` makes command lines, `process` starts and kills; `heartbeat`."""
