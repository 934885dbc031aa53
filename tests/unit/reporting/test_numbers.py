"""Numbers as text."""

import pytest

from cv_factory.reporting.numbers import format_beside_limit, format_count, format_share


@pytest.mark.parametrize(
    ("value", "limit", "spec", "text"),
    [
        (0.2, 0.05, ".1%", "20.0%"),
        (0.0504, 0.05, ".1%", "5.04%"),
        (0.05, 0.05, ".1%", "5.0%"),
        (20.04, 20.0, ".3g", "20.04"),
        (1234.4001, 1234.4, ",.4g", "1,234.4001"),
        (-0.01004, -0.01, "+.4f", "-0.01004"),
    ],
)
def test_a_value_beside_its_limit_is_told_from_it(
    value: float, limit: float, spec: str, text: str
) -> None:
    assert format_beside_limit(value, limit, spec) == text


def test_shares_and_counts() -> None:
    assert [format_share(s) for s in (0.05, 0.0005, 0.07, 1.0)] == ["5%", "0.05%", "7%", "100%"]
    assert format_count(1, "class") == "1 class"
    assert format_count(1204, "file") == "1,204 files"
