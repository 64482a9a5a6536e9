"""The administration of a cloud over HTTP: who is here, what there is, what was done; and, for operators, doing it.

``/api/v1/openapi.json`` describes all of it. Beside it stand ``/metrics`` for Prometheus, ``/healthz`` (this process is
alive) and ``/readyz`` (it can do its work). But for these two and the description everything wants a bearer token of
``duetto cloud admin-token``; what changes something wants one of an operator, says why, and is told to the audit log.
An error is one line of JSON: ``{"fault": ..., "remedy": ...}``.
"""
