"""What the store has of runs: no call is made twice, and another worker can go on."""
