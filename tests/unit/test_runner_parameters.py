"""Secrets and connections of parameters, from the environment."""

from __future__ import annotations

from tailrace.graph import ConnectionRef, SecretRef
from tailrace.runner.deployment import resolve_parameters, unset_parameters


def test_references_come_from_the_environment_and_those_that_are_not_there_are_named() -> None:
    values = {
        "n": 5,
        "key": SecretRef("api_key"),
        "gone": SecretRef("gone"),
        "mail": ConnectionRef("g-mail"),
        "no_mail": ConnectionRef("g-mail2"),
        "plain": ConnectionRef("openai"),
    }
    environment = {
        "TAILRACE_SECRET_API_KEY": "s3cret",
        "TAILRACE_CONNECTION_G_MAIL": '{"access_token": "t"}',
        "TAILRACE_CONNECTION_OPENAI": "sk",
    }
    assert resolve_parameters(values, environment) == {
        "n": 5,
        "key": "s3cret",
        "mail": {"access_token": "t"},
        "plain": {"api_key": "sk", "token": "sk", "access_token": "sk"},
    }
    assert unset_parameters(values, environment) == {
        "gone": "TAILRACE_SECRET_GONE",
        "no_mail": "TAILRACE_CONNECTION_G_MAIL2",
    }
