"""A Flower app to start from: texts, in which NAME, PACKAGE, PUBLISHER, TASK and ALGORITHM are replaced."""
