"""A Flower app to start from: texts, in which NAME, PACKAGE, TASK and other words in capitals are replaced."""
