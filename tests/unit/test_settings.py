"""Settings: precedence, sources, and errors that name where the mistake is."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from holo import settings
from holo.errors import UsageError
from holo.gc.policy import Policy
from holo.settings import Setting, Settings, Strategy, parse_size, size_text

EXAMPLE = Path(__file__).parents[2] / "settings.example.yaml"
KEYS = [
    "home",
    "holotree.restoration-strategy",
    "holotree.spares",
    "library.compression",
    "library.max-size",
    "library.keep-days",
    "library.min-free",
    "workers",
    "remote.url",
    "remote.push",
    "remote.allowed-signers",
    "remote.max-age",
]


def load(tmp_path: Path, text: str | None = None, **kwargs: str | None) -> Settings:
    """Load with nothing of this machine showing through; `text` is the settings file."""
    flags = {key: kwargs.pop(key) for key in ("strategy", "home") if key in kwargs}
    env = {"HOME": str(tmp_path / "user")} | {key: value for key, value in kwargs.items() if value is not None}
    if text is not None:
        file = tmp_path / "settings.yaml"
        file.write_text(text, encoding="utf-8")
        env["HOLO_SETTINGS"] = str(file)
    return settings.load(environ=env, **flags)


def source_of(result: Settings, key: str) -> str:
    return {setting.key: setting.source for setting in result.effective()}[key]


# --- defaults and precedence ------------------------------------------------------------------


def test_defaults_of_all_settings(tmp_path: Path) -> None:
    result = load(tmp_path)
    assert result.strategy is Strategy.SMART
    assert result.spares == 0
    assert result.compression == "auto"
    assert 1 <= result.workers <= 256
    assert result.file is None
    assert (result.remote_url, result.remote_push, result.allowed_signers, result.max_age) == (None, False, None, None)
    assert [setting.key for setting in result.effective()] == KEYS
    assert {setting.source for setting in result.effective()} == {"default"}


@pytest.mark.skipif(sys.platform != "linux", reason="CPU affinity and XDG are Linux")
def test_linux_defaults(tmp_path: Path) -> None:
    result = load(tmp_path)
    assert result.workers == min(len(os.sched_getaffinity(0)), 256)
    assert result.home == str(tmp_path / "user/.local/share/holo")
    assert load(tmp_path, XDG_DATA_HOME=str(tmp_path / "data")).home == str(tmp_path / "data/holo")
    assert load(tmp_path, XDG_DATA_HOME="relative").home == str(tmp_path / "user/.local/share/holo")


@pytest.mark.skipif(sys.platform != "linux", reason="XDG is Linux")
def test_user_whose_home_nobody_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for text in ("", "relative"):  # what HOME says is no path then, and the account has one
        assert settings.load(environ={"HOME": text}).home == f"{pwd.getpwuid(os.getuid()).pw_dir}/.local/share/holo"
    monkeypatch.setattr("os.getuid", lambda: 987654)  # as in a container that runs as any user
    with pytest.raises(UsageError, match="nobody knows your home folder: HOME is not set, and you have no account"):
        settings.load(environ={})
    (tmp_path / "settings.yaml").write_text("workers: 3\n")  # nobody has named it
    result = settings.load(environ={"HOLO_HOME": "in-env"})
    assert (result.home, result.file) == (str(tmp_path / "in-env"), None)
    assert settings.load(environ={"XDG_DATA_HOME": "/data"}).home == "/data/holo"
    (tmp_path / "settings.yaml").write_text("home: /srv/holo\n")
    assert settings.load(environ={"HOLO_SETTINGS": "settings.yaml"}).home == "/srv/holo"


def test_flag_beats_environment_beats_file_beats_default(tmp_path: Path) -> None:
    text = "holotree:\n  restoration-strategy: copy\n"
    key = "holotree.restoration-strategy"
    file = str(tmp_path / "settings.yaml")

    in_file = load(tmp_path, text)
    assert (in_file.strategy, source_of(in_file, key)) == (Strategy.COPY, file)
    assert in_file.file == file
    in_env = load(tmp_path, text, RCC_HOLOTREE_STRATEGY="hardlink")
    assert (in_env.strategy, source_of(in_env, key)) == (
        Strategy.HARDLINK,
        "environment variable RCC_HOLOTREE_STRATEGY",
    )
    flag = load(tmp_path, text, RCC_HOLOTREE_STRATEGY="hardlink", strategy="reflink")
    assert (flag.strategy, source_of(flag, key)) == (Strategy.REFLINK, "flag --strategy")


def test_home_by_flag_environment_and_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    text = f"home: {tmp_path}/in-file\n"
    assert load(tmp_path, text).home == str(tmp_path / "in-file")
    assert load(tmp_path, text, HOLO_HOME="in-env").home == str(tmp_path / "in-env")
    result = load(tmp_path, text, HOLO_HOME="in-env", home="in-flag")
    assert (result.home, source_of(result, "home")) == (str(tmp_path / "in-flag"), "flag --home")
    assert load(tmp_path, "home: ~/holo\n").home == str(tmp_path / "user/holo")


def test_an_empty_variable_is_not_set(tmp_path: Path) -> None:
    result = load(tmp_path, RCC_HOLOTREE_STRATEGY="", HOLO_HOME="", HOLO_SETTINGS="")
    assert result == load(tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="XDG is Linux")
@pytest.mark.parametrize("folder", ["user/.config", "elsewhere"])
def test_file_in_the_usual_place(tmp_path: Path, folder: str) -> None:
    file = tmp_path / folder / "holo/settings.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("workers: 3\n")
    xdg = str(tmp_path / folder) if folder == "elsewhere" else None
    result = load(tmp_path, XDG_CONFIG_HOME=xdg)
    assert result.workers == 3
    assert result.file == str(file)
    assert Setting("workers", 3, str(file)) in result.effective()


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "holotree:\nlibrary: {}\n", "---\n"])
def test_a_file_may_say_nothing(tmp_path: Path, text: str) -> None:
    result = load(tmp_path, text)
    assert {setting.source for setting in result.effective()} == {"default"}
    assert result.file is not None


# --- values -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "strategy"),
    [
        ("smart", Strategy.SMART),
        ("auto", Strategy.SMART),
        ("reflink", Strategy.REFLINK),
        ("hardlink", Strategy.HARDLINK),
        ("copy", Strategy.COPY),
        ("copy-only", Strategy.COPY),
    ],
)
def test_strategy_names(tmp_path: Path, name: str, strategy: Strategy) -> None:
    assert Strategy.parse(name, "here") is strategy
    assert load(tmp_path, RCC_HOLOTREE_STRATEGY=name).strategy is strategy
    assert load(tmp_path, f"holotree: {{restoration-strategy: {name}}}").strategy is strategy


@pytest.mark.parametrize("name", ["auto", "raw", "zstd"])
def test_compression_names(tmp_path: Path, name: str) -> None:
    assert load(tmp_path, f"library: {{compression: {name}}}").compression == name


@pytest.mark.parametrize(("text", "workers"), [("1", 1), ("256", 256), ('"8"', 8)])
def test_worker_counts(tmp_path: Path, text: str, workers: int) -> None:
    assert load(tmp_path, f"workers: {text}").workers == workers


def shown(result: Settings) -> dict[str, str | int]:
    return {setting.key: setting.value for setting in result.effective()}


@pytest.mark.parametrize(
    "url", ["https://cache.example/holo", "s3://bucket/holo", "file:///srv/holo", "/srv/holo", "http://[::1]:8080/"]
)
def test_remotes(tmp_path: Path, url: str) -> None:
    assert load(tmp_path, f"remote: {{url: '{url}'}}").remote_url == url
    assert load(tmp_path, HOLO_REMOTE=url).remote_url == url


def test_the_remote_of_the_environment_beats_that_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    text = "remote: {url: 's3://bucket'}"
    result = load(tmp_path, text, HOLO_REMOTE="here")
    assert (result.remote_url, source_of(result, "remote.url")) == (
        str(tmp_path / "here"),
        "environment variable HOLO_REMOTE",
    )
    assert load(tmp_path, text, HOLO_REMOTE="~/there").remote_url == str(tmp_path / "user/there")
    assert load(tmp_path, text, HOLO_REMOTE="none").remote_url is None
    assert load(tmp_path, text, HOLO_REMOTE="").remote_url == "s3://bucket"
    assert load(tmp_path, "remote: {url: ~/there/}").remote_url == str(tmp_path / "user/there")


def test_credentials_of_the_remote_are_kept_and_never_shown(tmp_path: Path) -> None:
    url = "https://ada:TheSecret@cache.example/holo?token=TheSecret"
    result = load(tmp_path, HOLO_REMOTE=url)
    assert result.remote_url == url
    assert shown(result)["remote.url"] == "https://***@cache.example/holo?***"
    assert "TheSecret" not in repr(result)


@pytest.mark.parametrize(
    "url", ["https://ada:The/Secret@cache.example", "ada:TheSecret@host:path", "https://ada:TheSecret\b@host/", "\t"]
)
def test_a_remote_that_is_wrong_is_not_shown(tmp_path: Path, url: str) -> None:
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump({"remote": {"url": url}}), encoding="utf-8")
    with pytest.raises(UsageError, match=r"settings\.yaml: remote\.url") as caught:
        settings.load(environ={"HOLO_SETTINGS": str(tmp_path / "settings.yaml")})
    assert "Secret" not in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize(
    "text",
    [
        "remote: https://ada:TheSecret@host/",
        "https://ada:TheSecret@host/: x",
        "remote: {url: https://ada:TheSecret@host/",
        "https://ada:TheSecret@host/",
    ],
)
def test_a_password_at_the_wrong_place_is_not_shown(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match=r"settings\.yaml: ") as caught:
        load(tmp_path, text)
    assert "Secret" not in str(caught.value)


@pytest.mark.parametrize(("text", "value"), [("true", True), ("false", False)])
def test_whether_to_push(tmp_path: Path, text: str, value: bool) -> None:
    result = load(tmp_path, f"remote: {{push: {text}}}")
    assert result.remote_push is value
    assert shown(result)["remote.push"] == text


def test_allowed_signers_are_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    result = load(tmp_path, "remote: {allowed-signers: ~/.ssh/allowed_signers}")
    assert result.allowed_signers == shown(result)["remote.allowed-signers"] == f"{tmp_path}/.ssh/allowed_signers"


@pytest.mark.parametrize(
    ("text", "seconds", "again"),
    [
        ("30d", 2_592_000, "30d"),
        ("12h", 43_200, "12h"),
        ("90m", 5400, "90m"),
        ("1s", 1, "1s"),
        ("2w", 1_209_600, "14d"),
        ("24h", 86_400, "1d"),
        ("none", None, "none"),
    ],
)
def test_ages(tmp_path: Path, text: str, seconds: int | None, again: str) -> None:
    result = load(tmp_path, f"remote: {{max-age: {text}}}")
    assert result.max_age == seconds
    assert shown(result)["remote.max-age"] == again


# --- mistakes ---------------------------------------------------------------------------------


def test_unknown_strategy_names_its_source(tmp_path: Path) -> None:
    allowed = "smart, auto, reflink, hardlink, copy, copy-only or overlay"
    sources = [
        ({"strategy": "fast"}, None, "flag --strategy"),
        ({"RCC_HOLOTREE_STRATEGY": "fast"}, None, "environment variable RCC_HOLOTREE_STRATEGY"),
        ({}, "holotree: {restoration-strategy: fast}", str(tmp_path / "settings.yaml")),
    ]
    for kwargs, text, source in sources:
        with pytest.raises(UsageError) as caught:
            load(tmp_path, text, **kwargs)
        assert str(caught.value) == f"{source}: unknown strategy 'fast'; use {allowed}"
        assert caught.value.exit_code == 2


def test_a_mistake_does_not_hide_behind_a_better_source(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="RCC_HOLOTREE_STRATEGY"):
        load(tmp_path, strategy="copy", RCC_HOLOTREE_STRATEGY="fast")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("speed: 11", "unknown key 'speed'; the keys are home, holotree.restoration-strategy"),
        ("holotree: {strategy: copy}", "unknown key 'holotree.strategy'"),
        ("holotree.restoration-strategy.x: copy", "unknown key"),
        ("1: x", "unknown key '1'"),
        ("<<: {workers: 1}", "unknown key '<<'"),
        ("holotree: copy", "holotree must hold keys and values, not 'copy'"),
        ("library: [raw]", "library must hold keys and values, not a list"),
        ("- workers", "the file must hold keys and values, not a list"),
        ("workers", "the file must hold keys and values, not 'workers'"),
        ("workers: [1]", "workers must be a single value, not a list"),
        ("home: {a: b}", "home must be a single value, not keys and values"),
        ("library: {compression: gzip}", "unknown library.compression 'gzip'; use auto, raw or zstd"),
        ("library: {max-size: much}", "library.max-size: 'much' is not a size"),
        ("library: {keep-days: 1.5}", "library.keep-days must be a number of days, or none, not '1.5'"),
        ("library: {compression: }", "unknown library.compression ''"),
        ("holotree: {restoration-strategy: no}", "unknown strategy 'no'; use smart"),
        ("workers: 0", "workers must be auto or a number from 1 to 256, not '0'"),
        ("workers: -1", "not '-1'"),
        ("workers: 257", "not '257'"),
        ("workers: 1_0", "not '1_0'"),
        ("workers: 2.0", "not '2.0'"),
        ("workers: yes", "not 'yes'"),
        ("workers: ²", "not '²'"),
        ("workers: " + "9" * 5000, "workers must be auto"),
        ("home: here/it/is", "home must be the absolute path of a folder, not 'here/it/is'"),
        ("home:", "home must be the absolute path of a folder, not ''"),
        ('home: "/a\\0b"', "home must be the absolute path of a folder"),
        ("remote: {url: here}", "remote.url must be a URL, the absolute path of a folder, or none"),
        ("remote: {url: }", "remote.url must be a URL"),
        ("remote: {push: yes}", "remote.push must be true or false, not 'yes'"),
        ("remote: {allowed-signers: }", "remote.allowed-signers must be the absolute path of a file, or none, not ''"),
        ("remote: {allowed-signers: keys}", "or none, not 'keys'"),
        ("remote: {max-age: }", "remote.max-age must be a duration of at most 100 years such as 30d, 12h or 90m"),
        ("remote: {max-age: 30}", "not '30'"),
        ("remote: {max-age: d}", "not 'd'"),
        ("remote: {max-age: 0d}", "not '0d'"),
        ("remote: {max-age: -1d}", "not '-1d'"),
        ("remote: {max-age: 1.5d}", "not '1.5d'"),
        ("remote: {max-age: ²d}", "not '²d'"),
        ("remote: {max-age: 36601d}", "not '36601d'"),
        ("remote: {max-age: " + "9" * 5000 + "d}", "remote.max-age must be"),
        ("workers: [", "not valid YAML: line 1, column 11: "),
        (
            "library:\n    max-size: 1GB\n   keep-days: 3",
            "line 3, column 4: expected <block end>, but found '<block mapping start>' (while parsing a block mapping)",
        ),
        (
            "\thome: /x",
            "line 1, column 1: found character '\\t' that cannot start any token (while scanning for the next",
        ),
        ("home: \1", "not valid YAML: unacceptable character #x0001: special characters are not allowed in"),
        ("workers: 1\nworkers: 2", "'workers' is there twice, again in line 2"),
        ("remote: {allowed-signers: /signers}\nremote: {url: none}", "'remote' is there twice"),
        ("library:\n  max-size: 1GB\n  max-size: 2GB", "'max-size' is there twice, again in line 3"),
        ("workers: 1\n--- \nworkers: 2", "not valid YAML"),
        ("? [a]\n: b", "not valid YAML"),
        ("[" * 5000, "not valid YAML"),
    ],
)
def test_mistakes_in_the_file(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(tmp_path, text)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'settings.yaml'}: ")
    assert says in message
    assert "\n" not in message


def test_the_file_may_not_be_text(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_bytes(b"home: \xff\xfe\n")
    with pytest.raises(UsageError, match="not valid YAML"):
        settings.load(environ={"HOLO_SETTINGS": str(file)})


def test_the_file_may_be_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read the settings"):
        settings.load(environ={"HOLO_SETTINGS": str(tmp_path)})


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    missing = str(tmp_path / "nowhere.yaml")
    with pytest.raises(UsageError, match=r"HOLO_SETTINGS: there is no file .*nowhere\.yaml"):
        load(tmp_path, HOLO_SETTINGS=missing)


@pytest.mark.parametrize("flag", ["strategy", "home"])
def test_an_empty_flag_is_a_mistake(tmp_path: Path, flag: str) -> None:
    with pytest.raises(UsageError, match=f"flag --{flag}"):
        load(tmp_path, **{flag: ""})


@given(st.text())
def test_any_text_is_a_strategy_or_a_usage_error(value: str) -> None:
    with contextlib.suppress(UsageError):
        assert Strategy.parse(value, "here") in Strategy


# --- the example ------------------------------------------------------------------------------


def test_the_example_documents_every_key_and_is_valid() -> None:
    written = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
    flat = [
        f"{key}.{name}" if name else key
        for key, value in written.items()
        for name in (value if isinstance(value, dict) else [""])
    ]
    assert flat == KEYS
    result = settings.load(environ={"HOLO_SETTINGS": str(EXAMPLE), "HOME": "/home/somebody"})
    defaults = settings.load(environ={"HOME": "/home/somebody"})
    assert {setting.source for setting in result.effective()} == {str(EXAMPLE)}
    assert (result.strategy, result.compression, result.workers) == (
        defaults.strategy,
        defaults.compression,
        defaults.workers,
    )


def test_every_key_of_the_example_has_a_comment_above_it() -> None:
    lines = EXAMPLE.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):
        if re.match(r" *[a-z-]+: \S", line):
            assert lines[number - 1].lstrip().startswith("#"), line


def test_importing_settings_stays_cheap() -> None:
    """`holo variables` runs at every shell prompt."""
    code = "import sys, holo.settings as s; s.load(environ={'HOME': '/nowhere'}); print(*sys.modules)"
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    heavy = {"yaml", "pydantic", "typer", "rich", "platformdirs", "holo.urls"} if sys.platform == "linux" else {"yaml"}
    assert not heavy & set(output.split())


def test_a_policy_becomes_a_size_where_room_is_lacking() -> None:
    assert Policy(min_free=100).within(1000, 100) == Policy()
    assert Policy(min_free=100).within(1000, 40) == Policy(max_size=940)
    assert Policy(min_free=100, max_size=500).within(1000, 40) == Policy(max_size=500)
    assert Policy(min_free=5000).within(1000, 40) == Policy(max_size=0)


@given(st.integers(0, 1 << 60))
def test_a_size_is_shown_as_it_can_be_written(size: int) -> None:
    assert parse_size(size_text(size)) == size
