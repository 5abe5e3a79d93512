"""What people write by hand, to measure against: nothing here imports trainer."""
