"""Where artifacts may come from, and how sources are named."""

import pytest

from trueup.models.artifacts import ArtifactPolicy, name_of, refusal, shown_source

LISTED = ArtifactPolicy(hosts=("example.org", "*.cdn.net", "build:8443", "[::1]"), paths=("/srv/artifacts",))


@pytest.mark.parametrize(
    ("source", "policy", "why"),
    [
        ("https://anywhere.example/x", ArtifactPolicy(), None),
        ("http://anywhere.example/x", ArtifactPolicy(), "artifacts over http are not allowed"),
        ("file:///srv/x", ArtifactPolicy(), "file: artifacts are not allowed"),
        ("ftp://example.org/x", LISTED, "artifacts come over https, http and file alone"),
        ("http://example.org/x", LISTED, None),
        ("https://EXAMPLE.org.:9/x", LISTED, None),
        ("https://user:pw@example.org/x", LISTED, None),
        ("https://example.org@evil.net/x", LISTED, "artifacts from the host evil.net are not allowed"),
        ("https://notexample.org/x", LISTED, "artifacts from the host notexample.org are not allowed"),
        ("https://a.b.cdn.net/x", LISTED, None),
        ("https://cdn.net/x", LISTED, "artifacts from the host cdn.net are not allowed"),
        ("https://build:8443/x", LISTED, None),
        ("https://build/x", LISTED, "artifacts from the host build are not allowed"),
        ("http://[::1]:81/x", LISTED, None),
        ("https://evil.net\\.cdn.net/x", LISTED, "an address without a plain host name is not allowed"),
        ("https://${x}.cdn.net/x", LISTED, "an address without a plain host name is not allowed"),
        ("https://example.org:port/x", LISTED, "an address that cannot be read is not allowed"),
        ("https:///x", ArtifactPolicy(), "an address without a plain host name is not allowed"),
        ("https://x/", ArtifactPolicy(hosts=()), "artifacts from the host x are not allowed"),
        ("http://x/", ArtifactPolicy(hosts=("*",)), None),
        ("file:///srv/artifacts/a/b", LISTED, None),
        ("file:///srv/artifacts/../x", LISTED, "artifacts from the path /srv/artifacts/../x are not allowed"),
        (
            "file:///srv/artifacts%2F..%2Fx",
            LISTED,
            "artifacts from the path /srv/artifacts/../x are not allowed",
        ),
        ("file:///srv/artifacts2/x", LISTED, "artifacts from the path /srv/artifacts2/x are not allowed"),
    ],
)
def test_the_policy_of_a_source(source: str, policy: ArtifactPolicy, why: str | None) -> None:
    assert refusal(source, policy) == why


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("https://example.org/a/b.tgz", "https://example.org/a/b.tgz"),
        ("https://user:secret@example.org/a?token=secret#x", "https://example.org/a"),
        ("https://user:se@cret@example.org/a", "https://example.org/a"),
        ("https://user:se/cret@example.org/a", "https://…"),
        ("https://user:1?secret@example.org/a", "https://…"),
        ("https://user:secret@example.org/@scope/a", "https://…"),
        ("https://example.org/@scope/a", "https://example.org/@scope/a"),
        ("https://u:${secret:token}@example.org/${JOB_NAME}.zip", "https://example.org/${JOB_NAME}.zip"),
        ("file:///srv/x", "file:///srv/x"),
        ("secret", "…"),
    ],
)
def test_no_password_is_shown(source: str, shown: str) -> None:
    assert shown_source(source) == shown


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("https://example.org/a/b.tgz?x=/c", "b.tgz"),
        ("https://example.org/a%20b", "a b"),
        ("https://example.org/a/", "a"),
        ("https://example.org", ""),
        ("https://example.org/a/..", ""),
        ("https://example.org/a%2Fb", ""),
        ("https://example.org/%2e%2e", ""),
    ],
)
def test_the_name_of_what_is_fetched(source: str, name: str) -> None:
    assert name_of(source) == name
