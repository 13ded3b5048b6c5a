"""This machine: `gpus` (driver and container checks), `provenance` (versions, hardware), `environment` (variables),
`extras` (packages of jobs).
"""
