"""What the command line changes of the configuration, and how the result is shown."""

import ipaddress
import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee.cli.address import Address, address_of, server_address, url_of_bind
from rbee.cli.effective_config import apply_overrides, as_toml, configuration
from rbee.cli.options import HERE, At
from rbee.cli.terminal import printable, printable_line
from rbee.config import (
    Config,
    LogConfig,
    ModelConfig,
    ServerConfig,
    SyntheticConfig,
    TlsConfig,
    parse_config,
)
from rbee.errors import ConfigError
from rbee.ids import has_hidden
from rbee.jwt_config import JwtConfig
from rbee.rate_limits import NO_LIMITS, Limits, Priority
from tests.cli.running import run_rbee

FILE = Config(
    server=ServerConfig(bind="127.0.0.1:1", drain_s=3.0),
    log=LogConfig(format="json", level="debug"),
    model=(ModelConfig(ref="synthetic", slots=2), ModelConfig(ref="bee-tiny")),
)


def test_nothing_given_changes_nothing() -> None:
    assert apply_overrides(FILE) == FILE


def test_what_is_given_goes_before_the_file_and_the_rest_stays() -> None:
    effective = apply_overrides(
        FILE, models=["file:/m/a.gguf"], bind="[::1]:80", run_dir="/run/x", log_format="text"
    )
    assert effective == Config(
        server=ServerConfig(bind="[::1]:80", drain_s=3.0, run_dir="/run/x"),
        log=LogConfig(format="text", level="debug"),
        model=(ModelConfig(ref="file:/m/a.gguf"),),
    )


@pytest.mark.parametrize("bind", ["", "7233", "127.0.0.1", "127.0.0.1:", "::1:80", "a:65536"])
def test_bad_bind_is_refused(bind: str) -> None:
    with pytest.raises(ConfigError, match=r"^--bind: "):
        apply_overrides(FILE, bind=bind)


@pytest.mark.parametrize("models", [[""], ["a\x1b"], ["x" * 600], ["a/b.gguf", "c/b"]])
def test_bad_models_are_refused(models: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"^--model: "):
        apply_overrides(FILE, models=models)


@pytest.mark.parametrize("run_dir", ["", "a\nb"])
def test_bad_run_dir_is_refused(run_dir: str) -> None:
    with pytest.raises(ConfigError, match=r"^--run-dir "):
        apply_overrides(FILE, run_dir=run_dir)


def test_file_here_is_taken_before_the_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert configuration(None) == Config()
    Path("rbee.toml").write_text("[server]\ndrain_s = 7\n")
    assert configuration(None).server.drain_s == 7
    Path("other.toml").write_text("[server]\ndrain_s = 8\n")
    assert configuration(Path("other.toml")).server.drain_s == 8


@pytest.mark.parametrize(
    ("bind", "url"),
    [
        ("127.0.0.1:7233", "http://127.0.0.1:7233"),
        ("0.0.0.0:80", "http://127.0.0.1:80"),
        ("[::]:80", "http://[::1]:80"),
        ("gpu-box:80", "http://gpu-box:80"),
    ],
)
def test_server_is_reached_where_it_listens(bind: str, url: str) -> None:
    assert url_of_bind(bind) == url


def test_url_that_is_given_goes_before_a_broken_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rbee.toml").write_text("nonsense")
    given = server_address(At(url="https://box:443/v1/", ca_file=Path("ca.pem")))
    assert given == Address("https://box:443", Path("ca.pem"))
    with pytest.raises(ConfigError, match=r"^rbee\.toml: "):
        server_address(HERE)


def test_a_server_under_tls_is_known_by_its_own_certificate_unless_told_otherwise() -> None:
    tls = TlsConfig(certificate_file="/etc/own.pem", key_file="/etc/key.pem")
    config = Config(server=ServerConfig(bind="0.0.0.0:443"), tls=tls)
    here = "https://127.0.0.1:443"
    assert address_of(config) == Address(here, own_certificate_file=Path("/etc/own.pem"))
    assert address_of(config, Path("ca.pem")) == Address(here, Path("ca.pem"))


def shown_texts(*, min_size: int = 0) -> st.SearchStrategy[str]:
    """What a configuration may hold: nothing that its reader does not see."""
    texts = st.text(st.characters(codec="utf-8"), min_size=min_size, max_size=40)
    return texts.filter(lambda text: not has_hidden(text))


@given(
    st.builds(
        ModelConfig,
        ref=shown_texts(min_size=1),
        name=st.from_regex(r"[a-z]{1,9}", fullmatch=True),
        threads=st.none() | st.integers(1, 1024),
        vram_fraction=st.floats(0.01, 1),
        synthetic=st.builds(
            SyntheticConfig,
            fault_prompt=st.none() | shown_texts(),
            tokens_per_s=st.floats(0.001, 1e6),
        ),
    )
)
def test_shown_configuration_reads_back_as_the_same(model: ModelConfig) -> None:
    config = msgspec.structs.replace(FILE, model=(model,))
    assert parse_config(as_toml(config)) == config


def test_tables_in_a_section_read_back_as_the_same() -> None:
    jwt = JwtConfig(
        roles={"team a": "user", 'x"\x7f': "admin"},
        limits=Limits(requests_per_minute=60, priority=Priority.LOW),
        role_limits={"operator": Limits(concurrent_requests=2), "admin": NO_LIMITS},
    )
    config = msgspec.structs.replace(FILE, jwt=jwt)
    assert parse_config(as_toml(config)) == config


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("limits = { requests_per_min = 1 }", "did you mean 'requests_per_minute'"),
        ("limits = { tokens_per_minute = 0 }", "jwt.limits.tokens_per_minute: Expected `int` >= 1"),
        ("role_limits = { user = { prio = 'low' } }", "did you mean 'priority'"),
        ("role_limits = { root = {} }", "jwt.role_limits: Invalid enum value 'root'"),
    ],
)
def test_limits_that_are_none_are_named(text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(f"[jwt]\n{text}")
    assert problem in str(caught.value)


def test_configuration_without_models_reads_back_as_the_same() -> None:
    config = msgspec.structs.replace(FILE, model=())
    assert parse_config(as_toml(config)) == config


def test_config_show_prints_what_holds(tmp_path: Path) -> None:
    (tmp_path / "rbee.toml").write_text('[[model]]\nref = "synthetic"\n')
    shown = run_rbee("config", "show", cwd=tmp_path)
    as_json = run_rbee("config", "show", "rbee.toml", "--json", cwd=tmp_path)
    expected = Config(model=(ModelConfig(ref="synthetic"),))
    assert parse_config(shown.stdout) == expected
    assert msgspec.convert(json.loads(as_json.stdout), Config) == expected


def test_config_check_says_what_is_served(tmp_path: Path) -> None:
    (tmp_path / "rbee.toml").write_text('[[model]]\nref = "synthetic"\nname = "fast"\n')
    done = run_rbee("config", "check", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (
        0,
        "rbee.toml: valid; serves fast at 127.0.0.1:7233\n",
    )


@given(st.text())
def test_printable_text_holds_no_control_character(text: str) -> None:
    controls = {chr(code) for code in (*range(0x20), *range(0x7F, 0xA0))}
    assert not controls & set(printable_line(text))
    assert not (controls - {"\n", "\t"}) & set(printable(text))


@given(st.integers(0, 65_535), st.ip_addresses())
def test_every_address_of_a_bind_gives_a_url(
    port: int, address: ipaddress.IPv4Address | ipaddress.IPv6Address
) -> None:
    host = f"[{address}]" if address.version == 6 else str(address)
    assert url_of_bind(f"{host}:{port}").endswith(f":{port}")
