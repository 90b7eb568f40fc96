"""The plain layers' types fit together, as mypy sees them."""

import pytest

from tools.check_types import check

from .conftest import HOME


def test_the_types_of_the_plain_layers_fit_together():
    pytest.importorskip("mypy")
    report = check(HOME.root / "mypy")
    assert report.returncode == 0, report.stdout + report.stderr
