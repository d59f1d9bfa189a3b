"""From a reference to an engine: chosen once, and never changed in silence."""

from pathlib import Path

import pytest

from rbee.config import Config, ModelConfig, WorkerConfig, load_config, parse_config
from rbee.errors import ConfigError
from rbee.ids import is_worker_id
from rbee.supervisor.catalogue import plan_workers
from rbee.supervisor.devices import Gpu, GpuSurvey
from rbee.supervisor.worker import WorkerPlan

NO_GPU = GpuSurvey((), "NVML: not found")
ONE_GPU = GpuSurvey((Gpu(0, "a GPU", 80 << 30, 80 << 30),), "")


def plan(*models: ModelConfig, gpus: GpuSurvey = NO_GPU, cores: int = 8) -> list[WorkerPlan]:
    return plan_workers(models, WorkerConfig(), gpus, cores)


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    path = tmp_path / "My Model.q4.gguf"
    path.write_bytes(b"GGUF" + bytes(100))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "my-exl2"
    path.mkdir()
    (path / "config.json").write_text("{}")
    return path


def test_a_gguf_file_is_for_the_cpu_engine_also_where_there_is_a_gpu(gguf: Path) -> None:
    [found] = plan(ModelConfig(ref=f"file:{gguf}"), gpus=ONE_GPU)
    assert found.welcome.model.engine == "llamacpp"
    assert found.welcome.path == str(gguf)
    assert found.welcome.model.name == "My-Model.q4"


def test_a_plain_path_does_as_well(gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(gguf.parent)
    [found] = plan(ModelConfig(ref=gguf.name))
    assert found.welcome.path == str(gguf)


def test_a_folder_is_for_the_gpu_engine(folder: Path) -> None:
    [found] = plan(ModelConfig(ref=f"file:{folder}"), gpus=ONE_GPU)
    assert found.welcome.model.engine == "exllamav2"


def test_a_folder_without_a_gpu_is_an_error_that_says_what_would_do(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"needs GPU 0.*NVML: not found.*\.gguf"):
        plan(ModelConfig(ref=f"file:{folder}"))


def test_a_gpu_that_is_not_there_is_an_error(folder: Path) -> None:
    with pytest.raises(ConfigError, match="needs GPU 1, and this box has 1"):
        plan(ModelConfig(ref=f"file:{folder}", gpu=1), gpus=ONE_GPU)


@pytest.mark.parametrize(
    ("ref", "engine", "problem"),
    [
        ("gguf", "exllamav2", "cannot serve a GGUF file"),
        ("folder", "llamacpp", "cannot serve a folder"),
        ("synthetic", "llamacpp", "cannot serve the reference 'synthetic'"),
        ("bee-tiny", "exllamav2", "cannot serve a GGUF file"),
    ],
)
def test_an_engine_that_cannot_serve_the_files_is_an_error(
    ref: str, engine: str, problem: str, gguf: Path, folder: Path
) -> None:
    refs = {"gguf": f"file:{gguf}", "folder": f"file:{folder}"}
    model = ModelConfig(ref=refs.get(ref, ref), engine=engine)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=problem):
        plan(model, gpus=ONE_GPU)


@pytest.mark.parametrize("ref", ["file:/nowhere/x.gguf", "nothing"])
def test_what_is_not_there_is_named(ref: str) -> None:
    with pytest.raises(ConfigError, match="nothing at"):
        plan(ModelConfig(ref=ref))


def test_files_of_another_kind_are_refused(tmp_path: Path) -> None:
    other = tmp_path / "model.gguf"
    other.write_bytes(b"PK\x03\x04")
    with pytest.raises(ConfigError, match="not a GGUF file"):
        plan(ModelConfig(ref=str(other)))
    with pytest.raises(ConfigError, match=r"no config\.json"):
        plan(ModelConfig(ref=str(tmp_path)))


def test_slots_have_ids_of_their_own_and_share_the_cores() -> None:
    plans = plan(
        ModelConfig(ref="bee-tiny", slots=3),
        ModelConfig(ref="synthetic", name="Bee_Tiny", slots=2),
        cores=8,
    )
    ids = [each.worker_id for each in plans]
    assert len(set(ids)) == 5
    assert all(is_worker_id(worker_id) for worker_id in ids)
    assert {each.welcome.threads for each in plans} == {2}


def test_threads_that_an_operator_sets_hold() -> None:
    assert plan(ModelConfig(ref="bee-tiny", threads=5))[0].welcome.threads == 5


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('[server]\nbnd = "x"', "server: unknown key 'bnd'; did you mean 'bind'?"),
        ('[[model]]\nref = "a"\nzzz = 1', r"model\[0\]: unknown key 'zzz'; known are"),
        ("[worker]\nbeat_s = true", r"worker\.beat_s: Expected `float`, got `bool`"),
        ('[log]\nlevel = "loud"', "log.level: .* 'loud'; may be debug, info, warning, error"),
        ('[[model]]\nref = "a"\ncache_bits = 5', r"cache_bits: .* 5; may be 4, 6, 8, 16"),
        ('[jwt]\nroles = { it = "boss" }', r"jwt\.roles.* 'boss'; may be viewer, user, operator"),
        ('[jwt.limits]\npriority = "top"', r"priority: .* 'top'; may be high, normal, low"),
        ("[worker]\nterm_after_s = 20", r"kill_after_s must not be below"),
        ('[[model]]\nref = "a"\n[[model]]\nref = "a"', "stands twice"),
        ("[server]\ndeadline_s = 4000", "must not be above"),
        ("x =", "Invalid value"),
        ('[[model]]\nref = "a"\nname = "../x"', "name may hold"),
        ('[[model]]\nref = "%s"' % ("a" * 600), "at most 512 bytes"),
        ('[[model]]\nref = ""', "at least 1"),
        ('[[model]]\nref = "file:a\\u202egnp.gguf"', r"model\[0\]: ref must hold no control"),
        ('[server]\nbind = "\\u001b[2J"', r"server\.bind: holds control characters, found '\\x1b"),
        ('[server]\nallowed_hosts = ["a", "b\\u0085"]', r"server\.allowed_hosts\[1\]: holds"),
        ('"a - at `b" = 1', "the file: unknown key 'a - at `b'; known are"),
        ('[server]\n"a - at `$.x`" = 1', r"server: unknown key 'a - at `\$\.x`'"),
        ('"a\\nb" = 1', r"the file: unknown key 'a\\nb'"),
        ("a = " + "[" * 3000, "nested too deep"),
        ("a = " + "9" * 5000, "4300 digits"),
    ],
    ids=lambda text: text[:30],
)
def test_a_bad_configuration_is_told_by_its_key(text: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        parse_config(text)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: No such file"):
        load_config(tmp_path / "none.toml")
    latin = tmp_path / "latin.toml"
    latin.write_bytes(b'x = "\xff"')
    with pytest.raises(ConfigError, match="not UTF-8 at byte 5"):
        load_config(latin)
    huge = tmp_path / "huge.toml"
    huge.write_bytes(b"#" * (1024 * 1024 + 1))
    with pytest.raises(ConfigError, match="longer than"):
        load_config(huge)


def test_an_empty_file_is_the_defaults(tmp_path: Path) -> None:
    empty = tmp_path / "rbee.toml"
    empty.write_text("")
    assert load_config(empty) == Config()
