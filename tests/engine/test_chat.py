"""Chat templates: the shapes that models come with work; hostile ones end soon and small."""

from datetime import UTC, datetime
from typing import Literal

import pytest

from rbee.ask import Message
from rbee.engine.chat import PROMPT_BYTES_MAX, SOURCE_CHARACTERS_MAX, ChatTemplate
from rbee.errors import EngineError, ErrorCode, ExitCode, RequestError

Role = Literal["system", "user", "assistant"]


def turns(*texts: tuple[Role, str]) -> list[Message]:
    return [Message(role=role, content=content) for role, content in texts]


TALK = turns(("system", "Be kind."), ("user", "Hi"), ("assistant", "Hello."), ("user", "Bye"))


def render(source: str, messages: list[Message] = TALK) -> str:
    return ChatTemplate(source, "<s>", "</s>").render(messages)


# --- the shapes that models come with

CHATML = """\
{%- for message in messages %}
    {%- if loop.first and message['role'] != 'system' %}
        {{- '<|im_start|>system\\nYou help.<|im_end|>\\n' }}
    {%- endif %}
    {{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""

HEADERS = """\
{{- bos_token }}
{%- if not date is defined %}{% set date = strftime_now('%d %b %Y') %}{% endif %}
{%- if messages[0].role == 'system' %}
    {%- set system = messages[0].content | trim %}
    {%- set rest = messages[1:] %}
{%- else %}
    {%- set system = '' %}
    {%- set rest = messages %}
{%- endif %}
{{- '<|head|>system<|end_head|>\\n\\nToday is ' ~ date ~ '.\\n' ~ system ~ '<|eot|>' }}
{%- for message in rest %}
    {{- '<|head|>' ~ message.role ~ '<|end_head|>\\n\\n' ~ message.content | trim ~ '<|eot|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|head|>assistant<|end_head|>\\n\\n' }}{% endif %}
"""

INSTRUCT = """\
{%- set ns = namespace(system='') -%}
{%- if messages[0]['role'] == 'system' -%}
    {%- set ns.system = messages[0]['content'] + '\\n\\n' -%}
    {%- set messages = messages[1:] -%}
{%- endif -%}
{{- bos_token -}}
{%- for message in messages -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{- raise_exception('Roles must take turns: user, assistant, user, and so on') -}}
    {%- endif -%}
    {%- if message['role'] == 'user' -%}
        {{- '[INST] ' + (ns.system if loop.last else '') + message['content'] + ' [/INST]' -}}
    {%- else -%}
        {{- ' ' + message['content'] + eos_token -}}
    {%- endif -%}
{%- endfor -%}
"""


def test_chatml_shape() -> None:
    assert render(CHATML) == (
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\nHello.<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_chatml_shape_puts_in_a_system_message() -> None:
    assert render(CHATML, turns(("user", "Hi"))).startswith("<|im_start|>system\nYou help.")


def test_header_shape_with_a_date() -> None:
    template = ChatTemplate(HEADERS, "<s>", "</s>", now=lambda: datetime(2026, 11, 3, tzinfo=UTC))
    assert template.render(turns(("system", " Be kind. "), ("user", " Hi "))) == (
        "<s><|head|>system<|end_head|>\n\nToday is 03 Nov 2026.\nBe kind.<|eot|>"
        "<|head|>user<|end_head|>\n\nHi<|eot|><|head|>assistant<|end_head|>\n\n"
    )


def test_instruct_shape() -> None:
    assert render(INSTRUCT) == "<s>[INST] Hi [/INST] Hello.</s>[INST] Be kind.\n\nBye [/INST]"


def test_refusal_of_the_template_is_told_in_its_own_words() -> None:
    with pytest.raises(RequestError, match="Roles must take turns: user, assistant") as caught:
        render(INSTRUCT, turns(("user", "one"), ("user", "two")))
    assert caught.value.code is ErrorCode.INVALID_REQUEST
    assert caught.value.param == "messages"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("  {% if true %}\n  x\n  {% endif %}\ny", "  x\ny"),  # trim_blocks and lstrip_blocks
        ("{{ messages[0] | tojson }}", '{"role": "user", "content": "é<&"}'),
        ("{{ {'b': 1, 'a': [2]} | tojson(indent=1, sort_keys=true) }}",
         '{\n "a": [\n  2\n ],\n "b": 1\n}'),
        ("{{ messages | map(attribute='role') | join(', ') }}", "user"),
        ("{{ messages | selectattr('role', 'equalto', 'user') | list | length }}", "1"),
        ("{% for m in messages if m.role == 'user' %}{{ loop.length }}{{ loop.last }}{% endfor %}",
         "1True"),
        ("{% for x in [0, 1, 2, 3] %}{% if x == 2 %}{% continue %}{% endif %}{{ x }}{% endfor %}",
         "013"),
        ("{% for x in range(9) %}{% if x > 3 %}{% break %}{% endif %}{{ x }}{% endfor %}", "0123"),
        ("{% macro bold(text) %}*{{ text }}*{% endmacro %}{{ bold('a') ~ bold(1) }}", "*a**1*"),
        ("{% set x %}{{ 'a' }}b{% endset %}{{ x * 2 }}", "abab"),
        ("{{ 'a</think>b'.split('</think>')[-1].lstrip('\\n') }}", "b"),
        ("{{ 'a-b-c'.rsplit('-', 1) | join('+') }} {{ ' x y '.split() | join('+') }}",
         "a-b+c x+y"),
        ("{{ 'aXbXc'.replace('X', '.', 1) }} {{ 'aXb' | replace('X', '') }}", "a.bXc ab"),
        ("{% for x in ['user'] %}{{ x.replace('u', 'U').split('e') }}{% endfor %}",
         "['Us', 'r']"),
        ("{{ '%s is %d' % ('x', 3) }} {{ '%5.1f' | format(2.25) }}", "x is 3   2.2"),
        ("{% generation %}said{% endgeneration %}", "said"),
        ("{% for k, v in {'a': 1}.items() %}{{ k }}={{ v }}{% endfor %}", "a=1"),
        ("{{ tools is none }} {{ nothing is defined }} [{{ nothing }}]", "True False []"),
        ("{{ 'é' | e }} {{ '<' | e }} {{ '<' | safe }} {{ 'a\nb' | indent(2) }}",
         "é &lt; < a\n  b"),
        ("{% set ns = namespace() %}{% for x in 'abc' %}{% set ns.n = x %}{% endfor %}{{ ns.n }}",
         "c"),
        ("{{ messages[-1].content is string and messages[::-1] | length == 1 }}", "True"),
        ("{% macro f(n) %}{% if n > 0 %}{{ n }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(3) }}",
         "321"),
        ("{{ dict(a=1).get('a') }}{{ [1] + [2] }}{{ 2 ** 10 }}{{ 7 % 4 }}", "1[1, 2]10243"),
    ],
)  # fmt: skip
def test_what_templates_use_is_there(source: str, expected: str) -> None:
    assert render(source, turns(("user", "é<&"))) == expected


def test_a_template_may_be_rendered_again_and_keeps_nothing() -> None:
    template = ChatTemplate(CHATML, "", "")
    assert template.render(TALK) == template.render(TALK)


def test_a_long_conversation_is_rendered() -> None:
    talk: list[tuple[Role, str]] = [("user", "word " * 100), ("assistant", "word " * 100)]
    many = turns(*talk * 1024)
    assert len(many) == 2048
    for source in (CHATML, HEADERS):
        assert render(source, many).count("word") == 2048 * 100


def test_a_list_may_be_built_in_a_loop() -> None:
    source = (
        "{% set ns = namespace(all=[]) %}{% for m in messages %}"
        "{% set ns.all = ns.all + [m] %}{% endfor %}{{ ns.all | length }}"
    )
    talk: list[tuple[Role, str]] = [("user", "hello " * 100)]
    assert render(source, turns(*talk * 100)) == "100"


# --- broken templates: the model cannot be used


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("{% if x %}", "line 1: "),
        ("a\n{{ x | nosuchfilter }}", "line 2: No filter named 'nosuchfilter'"),
        ("{% include 'x' %}", "includes, imports or extends"),
        ("{% import 'x' as y %}", "includes, imports or extends"),
        ("{% for x in y recursive %}{{ loop(x) }}{% endfor %}", "recursive loop"),
        ("x" * (SOURCE_CHARACTERS_MAX + 1), "at most 65536 may be"),
        ("{{ " + "(" * 5_000 + ")" * 5_000 + " }}", "RecursionError"),
        ("{{ 1" + "+1" * 30_000 + " }}", "RecursionError"),
        ("{{ " + "9" * 10_000 + " }}", "ValueError"),
    ],
)
def test_broken_template_is_the_models_fault(source: str, problem: str) -> None:
    with pytest.raises(EngineError, match="the model's chat template cannot be used") as caught:
        ChatTemplate(source, "", "")
    assert problem in str(caught.value)
    assert caught.value.exit_code is ExitCode.DATA


# --- errors hold no content

SECRET = "my-secret-0123"


@pytest.mark.parametrize(
    "source",
    [
        "{{ raise_exception('bad: ' + messages[0].content) }}",
        "{{ raise_exception(messages[0].content) }}",
        "{{ messages[0].content + 1 }}",
        "{{ messages[0].content | int + messages }}",
        "{{ {}[messages[0].content].x }}",
        "{{ messages[0][messages[0].content].x }}",
        "{{ messages[0].content.nothing.more }}",
        "{{ messages[0].content | tojson(indent=messages[0].content) }}",
        "{{ messages[0].content.index('x') }}",
        "{{ 1 / 0 }}",
        "{{ messages[0].content() }}",
    ],
)  # fmt: skip
def test_failure_is_told_without_content(source: str) -> None:
    with pytest.raises(RequestError) as caught:
        render(source, turns(("user", SECRET)))
    assert SECRET not in caught.value.message
    assert (caught.value.code, caught.value.param) == (ErrorCode.INVALID_REQUEST, "messages")


# --- limits


def test_output_over_the_limit_is_refused_and_under_it_is_not() -> None:
    assert len(render("{{ messages[0].content }}", turns(("user", "x" * 4_000_000)))) == 4_000_000
    with pytest.raises(RequestError, match=f"more than {PROMPT_BYTES_MAX} bytes"):
        render("{{ messages[0].content }}", turns(("user", "é" * 2_100_000)))
