import pytest


@pytest.fixture
def registered(monkeypatch):
    """Register a plug-in for one test alone."""

    def register(registry, plugin):
        registry.load()
        for name in ("_members", "_names"):
            monkeypatch.setattr(registry, name, dict(getattr(registry, name)))
        registry.register("of_a_test")(type(plugin))
        return plugin

    return register
