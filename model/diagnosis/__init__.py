"""Diagnosis of settings before a run, and of the convergence and speed of a run."""
