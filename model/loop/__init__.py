"""What every trainer shares: checkpoints, EMA, devices, distributed processes, reporting, interrupts."""
