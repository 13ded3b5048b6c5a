"""Ground floor of all three packages, torch-free.

`startup` and `program` (signals, outputs and errors of every program), `errors` (exceptions, exit codes), `files`
(atomic writes), `listing` (which files are data), `npz` (streamed images), `pixels` (files to RGB), `heartbeat`,
`processes`, `tables` (terminal), `validation` (YAML and settings with one-line errors).
"""
