"""How messages travel: the envelope, a session in which both sides ask, and what carries it."""
