"""What this machine is: GPUs, driver, versions, environment variables."""
