"""Credentials for S3 from the files of the AWS command line, where the environment has none."""

from __future__ import annotations

from pathlib import Path

import pytest

from holo.remote.objects import _profile

CREDENTIALS = """
[default]
aws_access_key_id = DEFAULTKEY
aws_secret_access_key = default%secret

[build]
aws_access_key_id = BUILDKEY
aws_secret_access_key = s
aws_session_token = t
"""
CONFIG = """
[default]
region = eu-west-1

[profile build]
region = us-east-2
endpoint_url = https://minio.example.com
"""


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in (
        "AWS_ACCESS_KEY_ID",
        "AWS_PROFILE",
        "AWS_REGION",
        "AWS_DEFAULT_REGION",
        "AWS_ENDPOINT_URL",
        "AWS_ENDPOINT",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("AWS_CONFIG_FILE", raising=False)
    monkeypatch.delenv("AWS_SHARED_CREDENTIALS_FILE", raising=False)
    folder = tmp_path / ".aws"
    folder.mkdir()
    (folder / "credentials").write_text(CREDENTIALS)
    (folder / "config").write_text(CONFIG)
    return folder


def test_the_default_profile() -> None:
    found = _profile("s3://bucket/x")
    assert found == {"access_key_id": "DEFAULTKEY", "secret_access_key": "default%secret", "region": "eu-west-1"}


def test_a_profile_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "build")
    assert _profile("s3://bucket/x") == {
        "access_key_id": "BUILDKEY",
        "secret_access_key": "s",
        "session_token": "t",
        "region": "us-east-2",
        "endpoint": "https://minio.example.com",
    }


def test_the_environment_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "ap-south-1")
    assert "region" not in _profile("s3://bucket/x")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "OTHER")
    assert _profile("s3://bucket/x") == {}
    assert _profile("gs://bucket/x") == {}


def test_other_files_by_variables(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = files / "elsewhere"
    (files / "credentials").rename(other)
    assert "access_key_id" not in _profile("s3://bucket/x")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(other))
    assert _profile("s3://bucket/x")["access_key_id"] == "DEFAULTKEY"


@pytest.mark.parametrize("content", [b"no section", b"[default\nx", b"\xff\xfe", b"[default]\n[default]\n"])
def test_a_file_that_is_none_counts_as_not_there(files: Path, content: bytes) -> None:
    (files / "credentials").write_bytes(content)
    (files / "config").write_bytes(content)
    assert _profile("s3://bucket/x") == {}
