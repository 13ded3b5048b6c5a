"""Published numbers, and what a run says about them."""
