"""The commands of `sra-bench`, one file per command, without option parsing.

`run` (with `plan`), `status`, `evaluate`, `fetch`, `doctor`, `clean`, `parity`, `perf`, `submit` (with `cancel`),
`work` (with `await`), `render`; `tool_options` are shared, `rehearsal` runs every manifest's smoke form.
"""
