"""Training: one loop, exact state; the stages as data."""
