"""The ground floor, torch-free: errors, files, npz, heartbeat. Used by all three packages."""
