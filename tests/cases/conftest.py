"""What the cases share with the tests of the command line."""

from tests.app.conftest import call  # noqa: F401
