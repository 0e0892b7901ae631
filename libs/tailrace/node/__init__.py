"""What node code touches."""
