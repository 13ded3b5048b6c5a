"""The commands of `sra-bench`, one file per command, without option parsing.

`run`, `plan` (with `budget`), `status`, `evaluate`, `compare`, `fetch`, `doctor`, `clean`, `submit` (with `cancel`),
`work` (with `await`), `render`, `site`, `publish`; `rehearsal` runs the smoke form of every manifest.
"""
