"""What is masked in texts that leave this machine, and what is not."""

import pytest

from cv_factory.monitoring.redaction import redact


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("postgresql://ann:pw@db/x", "postgresql://***@db/x"),
        ("GET https://x.org/a?page=2&api_key=abc", "GET https://x.org/a?page=2&api_key=***"),
        ("Authorization: Bearer abc.def-123", "Authorization: ***"),
        ("sent 'Bearer abcdef123'", "sent 'Bearer ***'"),
        ('{"password": "abc", "user": "ann"}', '{"password": "***", "user": "ann"}'),
        ("aws_secret_access_key = abcdef", "aws_secret_access_key = ***"),
        ("key cvf_abcdefgh12345 of digits", "key *** of digits"),
        ("AKIAIOSFODNN7EXAMPLE", "***"),
        ("-----BEGIN EC PRIVATE KEY-----\nabc\n-----END EC PRIVATE KEY-----.", "***."),
        ("the token of the run", "the token of the run"),
        ("KeyError: 'label' in train.epochs=3, data.keys: 4 rows", None),
        ("version 3 answers 12 of 20 samples: https://x.org/docs", None),
    ],
)
def test_secrets_are_masked(text: str, masked: str | None) -> None:
    result = redact(text, env={})
    if masked is None:
        assert result == text
    else:
        assert result == masked


def test_values_of_the_environment_and_given_ones_are_masked() -> None:
    env = {"DB_PASSWORD": "hunter2hunter2", "HOME": "/home/ann", "API_TOKEN": "1"}
    text = redact("hunter2hunter2 of /home/ann, 1 and hook-path", ["hook-path"], env)
    assert text == "*** of /home/ann, 1 and ***"
    assert "pw1" not in redact("password=pw1234", env={"DB_AUTH": "password"})
