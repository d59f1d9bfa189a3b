"""The fake package against the real one, by the text of its files: no import, no GPU.

Where exllamav2 is not installed, `RBEE_EXLLAMAV2_SOURCE` may name the folder of its package.
"""

import ast
import os
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from rbee.ask import Sampling
from rbee.engine.exllamav2.grammar_filter import GrammarFilter
from rbee.engine.exllamav2.sampling import settings
from tests.engine.exllamav2.conftest import FAKES

FILES = {  # of the fake: of the real package
    "__init__.py": ["config.py", "model.py", "cache.py", "tokenizer/tokenizer.py"],
    "generator/__init__.py": ["generator/dynamic.py"],
    "generator/sampler.py": ["generator/sampler.py"],
}


@pytest.fixture(scope="module")
def source() -> Any:
    named = os.environ.get("RBEE_EXLLAMAV2_SOURCE")
    spec = find_spec("exllamav2")
    if not named and spec is None:
        pytest.skip("needs exllamav2's source: install the extra, or set RBEE_EXLLAMAV2_SOURCE")
    return Path(named) if named else Path(str(spec and spec.origin)).parent


def classes(path: Path) -> Any:
    """Each class of a file, and of its classes, by name."""
    found = {}
    pending = [*ast.parse(path.read_text("utf-8")).body]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.ClassDef):
            found[node.name] = node
            pending += node.body
    return found


def methods(node: Any) -> Any:
    return {each.name: each for each in node.body if isinstance(each, ast.FunctionDef)}


def parameters(function: Any) -> Any:
    """Names in order, the default of each, and whether there is ``**``."""
    arguments = function.args
    names = [each.arg for each in arguments.args]
    defaults = [ast.unparse(each) for each in arguments.defaults]
    return names, defaults, arguments.kwarg is not None


def pairs() -> Any:
    """Every method that the fake has from the real package, by its name."""
    for fake_file in FILES:
        for name, node in classes(FAKES / "exllamav2" / fake_file).items():
            for method in methods(node):
                is_public = not method.startswith("_") or method == "__init__"
                if is_public and not name.startswith("_"):
                    yield fake_file, name, method


# The fake's own, or called by the fake alone.
OWN = {"forward_row", "receive_sample", "result", "decode"}


def real_signature(source: Path, fake_file: Any, name: str, method: Any) -> Any:
    found: dict[str, Any] = {}
    for real_file in FILES[fake_file]:
        found |= classes(source / real_file)
    node = found[name]
    while method not in methods(node):  # inherited
        node = found[node.bases[0].id]
    return parameters(methods(node)[method])


def test_the_fakes_methods_have_the_real_signatures(source: Path) -> None:
    compared = 0
    for fake_file, name, method in pairs():
        if method not in OWN:
            fake = methods(classes(FAKES / "exllamav2" / fake_file)[name])[method]
            assert parameters(fake) == real_signature(source, fake_file, name, method), method
            compared += 1
    assert compared >= 20


def fields(node: ast.ClassDef) -> dict[str, str]:
    found = {}
    for each in node.body:
        if isinstance(each, ast.AnnAssign) and each.value is not None:
            found[ast.unparse(each.target)] = ast.unparse(each.value)
    return found


def test_the_fakes_settings_have_the_real_fields_and_defaults(source: Path) -> None:
    fake = classes(FAKES / "exllamav2/generator/sampler.py")["Settings"]
    real = classes(source / "generator/sampler.py")["Settings"]
    assert fields(fake) == fields(real)


def test_every_setting_that_shapes_a_draw_is_set(source: Path) -> None:
    real = set(fields(classes(source / "generator/sampler.py")["Settings"]))
    inert = {name for name in real if name.startswith(("dry_", "xtc_", "mirostat_", "ngram_"))}
    inert -= {"dry_multiplier", "xtc_probability"}  # these switch the others on
    inert |= {"post_sampling_hooks", "token_bias"}  # none; the bias comes with the job
    assert set(settings(Sampling())) == real - inert


def test_the_grammar_filter_has_what_the_generator_and_the_sampler_call(source: Path) -> None:
    called = set()
    for file in ("generator/dynamic.py", "generator/sampler.py"):
        for node in ast.walk(ast.parse((source / file).read_text("utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                called |= {node.attr} if node.value.id == "f" else set()
    theirs = set(methods(classes(source / "generator/filters/base.py")["ExLlamaV2Filter"]))
    called &= theirs
    unused = {"background_next"}  # for filters that give lists of tokens
    assert called - unused <= set(dir(GrammarFilter))
    assert called >= {"begin", "feed", "get_next", "mask_logits", "background_drop"}


def test_the_generator_still_calls_the_method_that_is_watched(source: Path) -> None:
    text = (source / "generator/dynamic.py").read_text("utf-8")
    assert text.count("job.receive_logits") == 2  # in a thread of its own, and not
    assert "self.rng.random()" in text


def test_the_attention_that_is_replaced_is_called_by_these_names(source: Path) -> None:
    attn = ast.parse((source / "attn.py").read_text("utf-8"))
    keywords = set()
    for node in ast.walk(attn):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "").startswith("flash_attn"):
            keywords |= {each.arg for each in node.keywords if each.arg}
    flash_kwargs = {"window_size", "softcap"}
    known = {"q", "k", "v", "k_cache", "v_cache", "cache_seqlens", "block_table", "causal",
             "softmax_scale"}  # fmt: skip
    assert keywords <= known | flash_kwargs
    text = (source / "attn.py").read_text("utf-8")
    assert set(re.findall(r'flash_kwargs\["(\w+)"\]', text)) == flash_kwargs
