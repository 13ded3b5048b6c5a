"""Running a plan: `runner` runs its stages, `command` makes a job's command line, `executor` and `local` start it."""
