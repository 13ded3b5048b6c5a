"""The authors' files: `export` writes their checkpoint format, `standin` replaces their files in smoke runs."""
