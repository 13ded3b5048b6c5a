"""The authors' file formats, and stand-ins for published files."""
