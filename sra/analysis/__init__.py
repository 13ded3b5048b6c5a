"""Analysis of trained networks: `pca` and `probe` are the commands, on block outputs from `features`.

`options` holds the command-line options that both share.
"""
