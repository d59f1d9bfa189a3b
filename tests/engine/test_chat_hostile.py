"""Chat templates are not trusted: they get nothing but what they need, and not much of it."""

import json
import subprocess
import sys
import time

import pytest

from rbee.ask import Message
from rbee.engine.chat import ChatTemplate
from rbee.errors import ErrorCode, RequestError

MESSAGES = [Message(role="user", content="Hi"), Message(role="assistant", content="Hello.")]


def render(source: str) -> str:
    return ChatTemplate(source, "<s>", "</s>").render(MESSAGES)


# --- what a template may not do


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__ }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ ''['__class__'] }}",
        "{{ messages.__class__.__base__.__subclasses__() }}",
        "{{ raise_exception.__globals__ }}",
        "{{ strftime_now.__globals__['sys'] }}",
        "{{ strftime_now.__closure__ }}",
        "{{ namespace.__init__.__globals__ }}",
        "{{ namespace(a=1).__class__ }}",
        "{{ dict.fromkeys('ab') }}",
        "{{ dict.__base__ }}",
        "{{ range.__globals__ }}",
        "{{ self._TemplateReference__context.environment }}",
        "{{ self.__init__.__globals__.__builtins__ }}",
        "{% macro f() %}{% endmacro %}{{ f.__init__.__globals__ }}",
        "{% macro f() %}{% endmacro %}{{ f._func.__globals__ }}",
        "{% for x in [1] %}{{ loop.__init__ }}{{ loop._iterable }}{% endfor %}",
        "{{ nothing.__class__ }}",
        "{{ messages | map(attribute='__class__') | join }}",
        "{{ messages | map(attribute='content.__class__') | join }}",
        "{{ [messages] | map('tojson', default=raise_exception.__globals__) | list }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update(role='x') }}",
        "{{ '{0.__class__}'.format(1) }}",
        "{{ '{a.__class__}'.format_map({'a': 1}) }}",
        "{{ ''['format']('x') }}",
        "{{ (1).to_bytes(9, 'big') }}",
        "{{ 'x'.encode() }}",
    ],
)
def test_attributes_that_lead_out_of_the_sandbox_are_refused(source: str) -> None:
    with pytest.raises(RequestError):
        render(source)


@pytest.mark.parametrize(
    "source",
    ["{% for x in 1e400 %}{% endfor %}", "{% set x = [1e400 - 1e400] %}", "{% set x = -1e400 %}"],
)
def test_a_number_that_is_none_fails_as_any_wrong_value_does(source: str) -> None:
    with pytest.raises(RequestError, match="fails on these messages"):
        render(source)


@pytest.mark.parametrize("name", ["lipsum", "cycler", "joiner", "request", "config", "open"])
def test_globals_of_the_web_are_not_there(name: str) -> None:
    assert render("{{ " + name + " is defined }}") == "False"


# --- hostile templates

DOUBLE = (
    "{%% set ns = namespace(x=%s) %%}{%% for i in range(99) %%}{%% set ns.x = %s %%}{%% endfor %%}"
)

HOSTILE = {
    "repeat": "{{ 'a' * 10**8 }}",
    "repeat from the right": "{{ 10**8 * 'a' }}",
    "repeat a list": "{{ [0] * 10**9 }}",
    "power": "{{ 9**99999999 }}",
    "power of a float": "{{ 9.5**9999 }}",
    "product": DOUBLE % (2, "ns.x * ns.x"),
    "double a text by +": DOUBLE % ("'ab'", "ns.x + ns.x"),
    "double a text by ~": DOUBLE % ("'ab'", "ns.x ~ ns.x"),
    "double a text by join": DOUBLE % ("'ab'", "[ns.x, ns.x] | join"),
    "double a text by replace": DOUBLE % ("'ab'", "ns.x.replace('a', 'aa')"),
    "double a text by format": DOUBLE % ("'ab'", "'%s%s' % (ns.x, ns.x)"),
    "double a text by a block": "{% set ns = namespace(x='ab') %}{% for i in range(99) %}"
    "{% set y %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = y %}{% endfor %}",
    "double a text by a macro": "{% macro f(x, n) %}{{ f(x ~ x, n - 1) if n else x }}{% endmacro %}"
    "{{ f('ab', 99) }}",
    "double a list": DOUBLE % ("[1]", "ns.x + ns.x"),
    "share in a list": DOUBLE % ("[1]", "[ns.x, ns.x]") + "{{ ns.x }}",
    "share in a tuple": DOUBLE % ("(1,)", "(ns.x, ns.x)") + "{{ ns.x == ns.x }}",
    "share in a dict": DOUBLE % ("{}", "{'a': ns.x, 'b': ns.x}") + "{{ ns.x | tojson }}",
    "share in dict()": DOUBLE % ("{}", "dict(a=ns.x, b=ns.x)") + "{{ ns.x }}",
    "share in arguments": "{% macro f(n) %}{{ f(n - 1, varargs, varargs) if n else varargs }}"
    "{% endmacro %}{{ f(60) }}",
    "share in namespaces": DOUBLE % ("1", "namespace(a=ns.x, b=ns.x)")
    + "{% for i in range(10**5) %}{{ ns.x }}{% endfor %}{% for i in range(10**5) %}x{% endfor %}"
    * 9,
    "nest deep": DOUBLE % ("[]", "[ns.x]") + "{{ ns.x }}",
    "wide field": "{{ '%0100000000d' % 1 }}",
    "wide field by argument": "{{ '%*d' % (100000000, 1) }}",
    "wide field by filter": "{{ '%.100000000f' | format(1.0) }}",
    "precision": "{{ '%.999999999f' % 1 }}",
    "indent of JSON": "{{ [[[[1]]]] | tojson(indent=100000000) }}",
    "indent": "{{ ('a\n' * 9999) | indent(1000000) }}",
    "date": "{{ strftime_now('%0100000000d') }}",
    "large range": "{{ range(10**9) | list }}",
    "nested loops": "{% for a in range(99999) %}{% for b in range(99999) %}"
    "{% endfor %}{% endfor %}",
    "loops over a list": "{% set x = range(9999) | list %}{% for a in x %}{% for b in x %}"
    "{% for c in x %}{% if a == b %}{% endif %}{% endfor %}{% endfor %}{% endfor %}",
    "loop over a text": "{% for a in 'é' * 4000000 %}{{ loop.length }}{% endfor %}",
    "list of a text": "{{ ('é' * 4000000) | list | length }}{{ ('é' * 4000000) | sort | length }}",
    "text as arguments": "{% macro f() %}{{ varargs | length }}{% endmacro %}"
    "{{ f(*('é' * 4000000)) }}",
    "split": "{{ (' a' * 2000000).split() | length }}",
    "split at": "{{ ('a,' * 2000000).split(',') | length }}",
    "recursive macro": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "branching macro": "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}"
    "{{ f(60) }}",
    "long output": "{% for a in range(99999) %}{{ 'x' * 1000 }}{% endfor %}",
    "long output of new texts": "{% set x = 'x' * 4000000 %}{% set y %}{% for a in range(99999) %}"
    "{{ x ~ a }}{% endfor %}{% endset %}",
    "compare large texts": "{% set x = 'x' * 4000000 %}{% set y = 'x' * 2000000 ~ 'x' * 2000000 %}"
    "{% set z = [" + "x==y," * 12_000 + "] %}",
    "slice large texts": "{% set x = 'x' * 4000000 %}{{ [" + "x[1:] == 1," * 500 + "] }}",
    "divide large numbers": "{% set x = ('f' * 4000000) | int(0, 16) %}{{ x // 3**99 }}",
}  # fmt: skip


@pytest.mark.parametrize("source", HOSTILE.values(), ids=HOSTILE)
def test_hostile_template_is_refused_soon(source: str) -> None:
    template = ChatTemplate(source, "", "")
    began_s = time.thread_time()
    with pytest.raises(
        RequestError, match=r"takes too much|\((Overflow|Recursion)Error\)"
    ) as caught:
        template.render(MESSAGES)
    assert time.thread_time() - began_s < 2.0  # four times what it may, for slow machines
    assert caught.value.code is ErrorCode.INVALID_REQUEST


MEASURE = """
import json, resource, sys
from rbee.ask import Message
from rbee.engine.chat import ChatTemplate
from rbee.errors import RequestError
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = peak()
for source in json.load(sys.stdin):
    try:
        ChatTemplate(source, "", "").render([Message(role="user", content="x")])
    except RequestError:
        pass
print(peak() - before)
"""


def test_hostile_templates_take_little_memory() -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEASURE],
        input=json.dumps(list(HOSTILE.values())),
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    assert int(done.stdout) < 200 * 1024  # KiB
