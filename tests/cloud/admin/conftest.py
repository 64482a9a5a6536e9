"""The administration of a new cloud, an operator and a viewer."""

import sys
from pathlib import Path
from typing import Any

import pytest

from duetto.cloud.admin.app import application
from duetto.cloud.app import App
from duetto.cloud.service import Service
from duetto.cloud.site import Site

sys.path.insert(0, str(Path(__file__).parent))
from asking import Asking


@pytest.fixture
def service(site: Site) -> Service:
    """Of that site; nobody is connected."""
    return Service(App(site).party)


@pytest.fixture
def app(site: Site, service: Service) -> Any:
    return application(site, service)


@pytest.fixture
def anna(site: Site, app: Any) -> Asking:
    """An operator."""
    return Asking(app, site.operators.add("anna", "operator"))


@pytest.fixture
def vera(site: Site, app: Any) -> Asking:
    """A viewer."""
    return Asking(app, site.operators.add("vera", "viewer"))
