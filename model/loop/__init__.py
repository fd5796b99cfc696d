"""Shared parts of the trainers: checkpoints, EMA, devices, distributed processes, reporting, interrupts."""
