"""Images and latents on disk.

`images` and `latents` are jobs. `source` reads image data sets, `archive` zips, and `labels` their classes; `packed`
and `public_layout` are the two layouts of latents; `prefetch` reads ahead.
"""
