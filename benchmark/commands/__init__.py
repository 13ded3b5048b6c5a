"""What each command of `sra-bench` does, without the command line."""
