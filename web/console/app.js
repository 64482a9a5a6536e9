// The console: a fleet at a glance, and what an operator can do about it.
