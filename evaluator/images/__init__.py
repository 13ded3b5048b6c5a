"""Image sets: reading and inspection."""
