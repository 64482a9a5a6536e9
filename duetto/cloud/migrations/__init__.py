"""The steps from one state of the tables to the next, for alembic; :func:`duetto.cloud.database.upgraded` takes them.

A change to a table is a new file in ``versions``, which alters what the steps before it have made; a step that was
released is never changed. The tests compare what the steps make with what the tables say.
"""
