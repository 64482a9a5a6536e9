"""Measuring: everything reported is a function of records.

Files: records (the log as JSON lines) · users (accuracy per user, intervals over users) · ranking (hits and gain at the
top of a list, AUC per user) · pareto (accuracy against asking) · table (the table of results) · result (what a run
found, as one JSON file) · people (what each user got) · plot (figures as SVG) · maps (a planner's maps) · report (one
HTML page) · tensorboard (event files).
"""
