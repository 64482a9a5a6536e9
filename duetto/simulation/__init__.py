"""A fleet, its network and its time, on one machine."""
