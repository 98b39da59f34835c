"""What people ask of finished shards: where samples come from, what they cost, what they look like."""
