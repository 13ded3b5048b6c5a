"""Ground floor of all three packages, torch-free.

`startup` and `program` (signals, outputs and errors of every program), `errors` (exceptions, exit codes), `archives`
(zip), `checkpoints` (what they hold), `files` (atomic writes, JSON), `listing` (which files are data), `npz` (streamed
images), `pixels` (files to RGB), `heartbeat`, `processes`, `tables` (terminal), `validation` (YAML, settings and
records with one-line errors).
"""
