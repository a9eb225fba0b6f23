#!/usr/bin/env python3
"""Makes tests/data/chat_templates/golden.json: what HF transformers makes of conversations by the templates there.

    tests/golden/make_chat_template.py [--check]          (needs transformers 5.23 and jinja2 3.1.6)
    tests/golden/make_chat_template.py --of DIR OUT       the same of other templates, *.jinja of a folder

The templates are written for this test, in the manner of published ones. golden.json has `tokens` (special tokens),
`conversations` ({messages, tools or null, prompt: add_generation_prompt}), `templates`: for each the text of each
conversation, null where it raises, and the answers by {% generation %} (characters, begin and end) where it has such;
and `constructs`: small templates with what they give for conversation 0, null where they raise. `learnt` has
conversations as tokens of tests/data/tokenizer, and which of them are answers: by {% generation %} as transformers' mask
has it, else what messages[:i + 1] has more than messages[:i] with the generation prompt, as TRL tokenises prompts and
completions.
"""
import argparse
import json
import pathlib
import sys

import transformers
from tokenizers import Tokenizer
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast
from transformers.utils import chat_template_utils

DATA = pathlib.Path(__file__).parent.parent / "data" / "chat_templates"
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}

WEATHER = {"type": "function", "function": {
    "name": "weather", "description": "the weather of a place, \"now\" & <later> – été ",
    "parameters": {"type": "object", "properties": {
        "place": {"type": "string"}, "days": {"type": "array", "items": {"type": "integer"}}, "unit": {"enum": ["°C", "°F"]},
        "where": {"type": "object", "properties": {"lat": {"type": "number"}, "deep": {"type": ["string", "null"]}}, "required": ["lat"]}},
        "required": ["place"]}}}
CLOCK = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}}
CALL = {"type": "function", "id": "call_12345678", "function": {"name": "weather", "arguments": {
    "place": "Zürich", "days": [1, 2.5, -3e-7, 1e16, True, None], "text": "\"a\\b\"\n\t\u0001/\u2028\U0001f600", "empty": {}, "none": []}}}


def said(role, content, **more):
    return {"role": role, "content": content, **more}


CONVERSATIONS = [
    ([said("user", "Hello  there!\n"), said("assistant", " Hi.")], None, False),
    ([said("system", "Be brief. "), said("user", "1 + 1?"), said("assistant", "2"), said("user", "And\n\nmore? <b>&</b>")], None, True),
    ([said("user", "Grüß dich, 你好 \U0001f44b\U0001f3fd e\u0301"), said("assistant", "\u3000¡Hola!\u00a0"), said("user", "ok"), said("assistant", "")], None, False),
    ([said("system", "S"), said("user", "Weather?"), said("assistant", None, tool_calls=[CALL]), said("tool", "{\"t\": 21}", name="weather", tool_call_id="call_12345678"),
      said("assistant", "It's 21 °C.")], [WEATHER, CLOCK], False),
    ([said("user", "Weather?"), said("assistant", "Let me see.", tool_calls=[CALL, CALL]), said("tool", "21"), said("tool", "22")], [WEATHER], True),
    ([said("user", "Think!"), said("assistant", "<think>\nhm\n</think>\n\nA."), said("user", "Again"), said("assistant", "B.", reasoning_content="Well\n")], None, False),
    ([said("user", "a"), said("user", "b")], None, True),
    ([said("system", "only")], None, False),
    ([said("assistant", "I begin."), said("user", "Do")], None, True),
]

CONSTRUCTS = r"""
{{ 1 + 2 * 3 - 4 // 3 }} {{ 7 / 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 2 ** 10 }} {{ 2 ** -1 }} {{ 7.0 }} {{ 1e16 }} {{ 1e-5 }} {{ 0.1 + 0.2 }} {{ 1_000 }}
{{ 'a' + "b" ~ 1 ~ none ~ true ~ 1.5 }} {{ 'ab' * 3 }} {{ [1] * 2 + [3] }} {{ 'x' 'y' }}
{{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ 'a' < 'b' }} {{ 1 == 1.0 }} {{ true == 1 }} {{ '1' == 1 }} {{ none == none }} {{ [1, 2] < [1, 3] }} {{ nope == nada }}
{{ 'a' in 'cat' }} {{ 1 not in [1] }} {{ 'role' in messages[0] }} {{ 'x' in nope }} {{ not 1 in [2] }} {{ '' in 'a' }}
{{ true and 'x' }} {{ 0 or 'y' }} {{ not none }} {{ '' or none }} {{ 1 and 0 }} {{ not true == false }}
{{ 'y' if false }}|{{ 'y' if true else 'n' }}|{{ 'a' if 0 else 'b' if 0 else 'c' }}
{{ [1, 'a', none, 1.0, true, {'k': "it's"}, (1,), ()] }} {{ {'a': 1, 'b': [2]} }} {{ (1, 2) }} {{ ['"', "'\"", 'é\n\t\\', '\u200b\x07'] }}
{{ messages[0] }} {{ messages[-1].role }} {{ messages[9] }}|{{ messages[0].nope }}|{{ messages[0]['content'][1] }} {{ messages.0.role }}
{{ 'abcdef'[1:3] }} {{ 'abcdef'[::-1] }} {{ 'äöü'[1:] }} {{ [1,2,3,4][::2] }} {{ [1,2,3][-2:] }} {{ 'abc'[5:] }}|{{ [1,2,3][2:0:-1] }} {{ 'abc'[-9:9] }}
{{ 'a-b-c'.split('-') }} {{ ' a  b '.split() }} {{ ' a b  c '.split(none, 1) }} {{ 'a-b-c'.rsplit('-', 1) }} {{ 'abc'.split('x') }} {{ ''.split() }} {{ ''.split('a') }} {{ ' a b  c '.rsplit(none, 1) }}
{{ '  x '.strip() }}|{{ 'xxaxx'.strip('x') }}|{{ ' a'.lstrip() }}|{{ 'a\n'.rstrip('\n') }}|{{ 'äxä'.strip('ä') }}|{{ '\u3000\u00a0x\u2003'.strip() }}
{{ 'abc'.startswith('ab') }} {{ 'abc'.endswith(('x', 'c')) }} {{ 'aXbX'.replace('X', '-') }} {{ 'aXbX'.replace('X', '-', 1) }} {{ 'ab'.replace('', '.') }} {{ 'abcabc'.find('c') }} {{ 'abc'.find('x') }} {{ 'äbä'.rfind('ä') }} {{ 'aaa'.count('a') }} {{ 'aaa'.count('') }}
{{ 'hello wORLD it\'s'.title() }} {{ 'hELLO wORLD'.capitalize() }} {{ 'Äß'.upper() }} {{ 'ÄB'.lower() }} {{ 'a1'.isalnum() }} {{ '12'.isdigit() }} {{ ''.isalpha() }} {{ ', '.join(['a', 'b']) }} {{ 'a\nb\r\nc\n'.splitlines() }} {{ 'preabc'.removeprefix('pre') }} {{ 'abc'.removesuffix('x') }}
{{ 'hello wORLD-x (y'|title }} {{ 'hELLO'|capitalize }} {{ 'a'|upper }} {{ 'A'|lower }} {{ ' x '|trim }}| {{ 'xax'|trim('x') }} {{ [1,2]|length }} {{ 'äö'|length }} {{ nope|length }} {{ {}|count }}
{{ [1,2]|join('-') }} {{ ['a',none]|join }} {{ messages|join(', ', attribute='role') }} {{ [3,1,2]|sort }} {{ ['b','A']|sort }} {{ [1,2]|sort(reverse=true) }} {{ messages|map(attribute='role')|list }} {{ ['a']|map('upper')|list }} {{ [1,2,1]|unique|list }} {{ [1,2]|sum }} {{ [1,3,2]|max }} {{ [1,3,2]|min }} {{ [1,2]|reverse|list }} {{ 'abc'|reverse }}
{{ messages|selectattr('role', 'equalto', 'user')|map(attribute='content')|list }} {{ messages|rejectattr('role', 'eq', 'user')|list|length }} {{ [0,1,2]|select|list }} {{ [1,2,3]|select('odd')|list }} {{ [1,none]|reject('none')|list }} {{ messages|selectattr('tool_calls', 'defined')|list }} {{ messages|selectattr('content')|list|length }}
{{ [1,2]|first }} {{ [1,2]|last }} {{ []|first }}| {{ 'abc'|first }} {{ 'abc'|list }} {{ 5|string + 'x' }} {{ '42'|int + 1 }} {{ 'x'|int }} {{ 'x'|int(7) }} {{ ' 3.9 '|int }} {{ '1.5'|float }} {{ 2.5|round }} {{ 2.567|round(2) }} {{ 2.1|round(method='ceil')|int }} {{ -3|abs }} {{ true|int }}
{{ nope|default('d') }} {{ ''|default('d') }}|{{ ''|default('d', true) }} {{ none|d('x') }} {{ nope|d }}| {{ 'a\nb\n\nc'|indent }} {{ 'a\nb'|indent(2, true) }} {{ 'a\n\nb'|indent('>', blank=true) }} {{ 'aXa'|replace('a', 'b') }} {{ 'aXa'|replace('a', 'b', 1) }} {{ '<a href="x">\'&'|e }} {{ '<b>'|safe }}
{{ {'b': 1, 'a': 2}|dictsort }} {{ {'b': 1, 'a': 2}|dictsort(by='value') }} {{ {'a': 1}|items|list }} {{ nope|items|list }} {{ {'b': 1, 'a': {'z': [1, {}], 'y': []}}|tojson }} {{ {'b': 1, 'a': [1, {}, {'x': none}]}|tojson(indent=2) }} {{ {'b': 1, 'a': 2}|tojson(sort_keys=true) }} {{ ['é<>&\'"\\/\u007f\u0001']|tojson }} {{ 'é😀'|tojson(ensure_ascii=true) }} {{ [1,2]|tojson(separators=(',', ':')) }} {{ {1: 2, true: 3, none: 4}|tojson }} {{ [1.0, 1e22, 1e-7, 123456789.125, 1e15, 1234567890123456.0]|tojson }} {{ [[], [1]]|tojson(indent='\t') }}
{% for k, v in {'a': 1, 'b': 2}.items() %}{{ k }}={{ v }}{{ ', ' if not loop.last }}{% endfor %} {{ {'a': 1}.get('a') }} {{ {'a': 1}.get('b') }} {{ {'a': 1}.get('b', 2) }} {{ {'a': 1}.keys()|list }} {{ {'a': 1}.values()|list }} {{ {'items': 5}['items'] }} {{ {'a': 1}['b'] }}| {{ dict(a=1, b=2) }} {{ dict({'a': 0}, a=1) }}
{% for x in [1,2,3,4] if x % 2 == 0 %}{{ loop.index }}/{{ loop.length }}:{{ x }}{% if loop.first %} first{% endif %}{% if loop.last %} last{% endif %} {{ loop.previtem }} {{ loop.nextitem }} {{ loop.revindex }} {{ loop.index0 }};{% else %}none{% endfor %}{% for x in [] %}{% else %}empty{% endfor %}
{% for x in range(10) %}{% if x == 2 %}{% continue %}{% endif %}{% if x > 4 %}{% break %}{% endif %}{{ x }}{% endfor %} {{ range(3)|list }} {{ range(5, 0, -2)|list }} {% for c in 'äb' %}[{{ c }}]{% endfor %}{% for x in [1, 2] %}{{ loop.cycle('a', 'b') }}{{ loop.changed(1) }}{% endfor %}{% for a in [1,2] %}{% for b in [1] %}{{ loop.depth }}{% endfor %}{{ loop.depth0 }}{% endfor %}
{% set x = 1 %}{% for i in [1] %}{% set x = x + 1 %}{{ x }}{% endfor %}{{ x }}{% if true %}{% set x = 5 %}{% endif %}{{ x }}{% set ns = namespace(a=1) %}{% for i in [1,2] %}{% set ns.a = ns.a + i %}{% endfor %}{{ ns.a }}{% set a, b = 1, 'z' %}{{ a }}{{ b }}{% set y %}cap{{ x }}{% endset %}{{ y|upper }}{% set z | upper | trim %} low {% endset %}{{ z }}{% set (p, q) = [7, 8] %}{{ q }}
{% macro m(a, b=2, c=a) %}{{ a }}-{{ b }}-{{ c }}{% endmacro %}{{ m(1) }} {{ m(1, c=3) }} {{ m(b=1, a=0) }} {{ m() }}|{% macro w(t) %}<{{ t }}>{{ caller(t) }}</{{ t }}>{% endmacro %}{% call(x) w('b') %}in {{ x }}{% endcall %}{% macro up() %}{{ later }}{% endmacro %}{% set later = 'L' %}{{ up() }}{{ m(1)|length }}
{% with a = 1, b = 2 %}{{ a + b }}{% endwith %}{{ a }}| {% filter upper %}x{{ 1 }}y{% endfilter %} {% filter replace('a', 'b')|upper %}aa{% endfilter %} {% raw %}{{ x }} {% if %}{% endraw %} {#- gone -#} x
  {%- if true -%}   a   {%- endif +%}  b
a {{- 'b' -}} c {%- if false %}x{% elif true %}y{% else %}z{% endif %}
{% if true %}
  line
  {% if true %}
    in
  {% endif %}
 {# comment #}
  {{ 'var' }}
  {%+ if true %}kept{% endif %}
{% endif %}
end
{% if x is defined %}d{% endif %}{{ messages is defined }} {{ nope is undefined }} {{ none is none }} {{ 'a' is string }} {{ {} is mapping }} {{ [] is sequence }} {{ 'a' is sequence }} {{ {} is sequence }} {{ 1 is iterable }} {{ nope is iterable }} {{ 1 is number }} {{ true is number }} {{ true is integer }} {{ 1.5 is float }} {{ true is boolean }} {{ true is true }} {{ 1 is true }} {{ false is false }} {{ 3 is odd }} {{ 4 is even }} {{ 6 is divisibleby 3 }} {{ 1 is in [1] }} {{ 2 is not in [1] }} {{ 'a' is equalto 'a' }} {{ 1 is eq 1 }} {{ 2 is gt 1 }} {{ none is not none }} {{ raise_exception is callable }} {{ 'ab' is lower }} {{ not nope is defined }} {{ 1 is sameas 1 }} {{ 'a' is ne('b') }}
{{ tools is none }} {{ tools }} {{ documents }} {{ add_generation_prompt }} {{ bos_token }} {{ eos_token }} {{ pad_token }}| {{ nope }}| {{ nope ~ 'x' }} {{ messages|length > 1 }} {{ none.x }}|{{ (1).x }}|{{ 'a'.b }}|
{{ '\x41\u00e4\'\"\\\n\q\101' }} {{ 'a\
b' }} {{ "{{ }} {% %}" }} {{ {'a': {'b': 1}}.a.b }} {{ '%}' }} {{ -3|abs }} {{ 2 - -1 }} {{ +3 }} {{ -2 ** 2 }} {{ (1, 2)[1] }} {{ [[1, 2], [3]][0][1] }} {{ 'a'.upper().lower() }} {{ ('a' ~ 'b')|upper ~ 'c'|upper }}
{{ namespace(a=1).a }}{% set n = namespace({'q': 1}, b=2) %}{{ n.q }}{{ n.b }}{{ n.c }}| {{ n['b'] }}{% if n %}t{% endif %} {{ strftime_now('%%') }}{{ strftime_now('') }}|
{{ nope.x }}
{{ nope() }}
{{ 1 + 'a' }}
{{ none + 'a' }}
{{ 1 / 0 }}
{{ raise_exception('no') }}
{{ [1].append(2) }}
{{ {'a': 1}.update({}) }}
{{ messages|nofilter }}
{{ 1 is notest }}
{% if %}{% endif %}
{% for x in 5 %}{% endfor %}
{{ 'a' < 1 }}
{{ nope|tojson }}
{{ [1, 2 }}
{% endif %}
{% unknown %}
{{ 'x' * 'y' }}
{{ range(100001) }}
{% set x.y = 1 %}
{% set n = namespace() %}{% set n._x = 1 %}
{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}
{% set a, b = 1, 2, 3 %}
{{ 'abc'.nomethod() }}
{{ ''.split('') }}
{% break %}
{{ {}|first|upper }}|{{ (none|default('x', true)) }}
{% if messages[0].tool_calls %}a{% else %}b{% endif %}{% if messages[0].items %}c{% endif %}{{ messages[0].get('role') }}
"""


def constructs():
    """One a line; a line that begins with white space, or that follows a tag alone on its line, belongs to the one before."""
    out, block = [], False
    for line in CONSTRUCTS.strip("\n").split("\n"):
        if out and (line.startswith(" ") or line.startswith("b' ") or block):
            out[-1] += "\n" + line
        else:
            out.append(line)
        block = (block or line == "{% if true %}") and line != "end"
    return out


TOKENIZER = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(BPE()), **TOKENS)


def render(source, messages, tools, prompt):
    """The text, or None where the template raises."""
    try:
        return TOKENIZER.apply_chat_template(messages, tools=tools, chat_template=source, add_generation_prompt=prompt, tokenize=False)
    except Exception as error:  # noqa: BLE001: whatever it is, Tessera is to refuse as well
        if "--verbose" in sys.argv:
            print(repr(source[:60]), type(error), error, file=sys.stderr)
        return None


def answers(source, messages, tools, prompt):
    messages = [{k: v for k, v in m.items() if v is not None} for m in messages]
    try:
        return chat_template_utils.render_jinja_template(
            conversations=[messages], tools=tools, chat_template=source, return_assistant_tokens_mask=True,
            add_generation_prompt=prompt, **TOKENS)[1][0]
    except Exception:  # noqa: BLE001
        return None


def learnt(template, kind, which):
    """A conversation's ids, and for each whether it is an answer."""
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(DATA.parent / "tokenizer" / kind / "tokenizer.json"), **TOKENS)
    messages, tools, _ = CONVERSATIONS[which]
    source = (DATA / f"{template}.jinja").read_text()

    def encoded(part, **more):
        return tokenizer.apply_chat_template(part, tools=tools, chat_template=source, return_dict=True, **more)

    if "generation -%}" in source:
        whole = encoded(messages, return_assistant_tokens_mask=True)
        ids, mask = whole["input_ids"], whole["assistant_masks"]
    else:
        ids = encoded(messages)["input_ids"]
        mask = [0] * len(ids)
        for i, message in enumerate(messages):
            if message["role"] == "assistant":
                before, up_to = encoded(messages[:i], add_generation_prompt=True)["input_ids"], encoded(messages[:i + 1])["input_ids"]
                assert ids[:len(before)] == before and ids[:len(up_to)] == up_to, (template, kind, which)
                mask[len(before):len(up_to)] = [1] * (len(up_to) - len(before))
    return {"template": template, "tokenizer": kind, "conversation": which, "ids": " ".join(map(str, ids)),
            "answer": "".join(map(str, mask))}


LEARNT = [("chatml", "qwen2", 0), ("chatml", "qwen2", 2), ("chatml-tools", "qwen2", 3), ("generation", "qwen2", 3), ("generation", "qwen2", 5),
          ("generation", "gemma", 0), ("headers-tools", "llama3", 0), ("pipes", "metaspace", 0), ("inst", "llama2", 0), ("turns", "gemma", 0)]


def golden(folder):
    out = {"versions": f"transformers {transformers.__version__}", "tokens": TOKENS,
           "conversations": [{"messages": m, "tools": t, "prompt": p} for m, t, p in CONVERSATIONS], "templates": {}}
    for file in sorted(pathlib.Path(folder).glob("*.jinja")):
        source = file.read_text()
        case = {"texts": [render(source, *c) for c in CONVERSATIONS]}
        if "generation %}" in source or "generation -%}" in source:
            case["answers"] = [answers(source, *c) for c in CONVERSATIONS]
        out["templates"][file.stem] = case
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--of", nargs=2, metavar=("DIR", "OUT"))
    args = parser.parse_args()
    made = golden(args.of[0] if args.of else DATA)
    if not args.of:
        made["learnt"] = [learnt(*case) for case in LEARNT]
        made["constructs"] = [[c, render(c, *CONVERSATIONS[0])] for c in constructs()]
    text = json.dumps(made, indent=1, ensure_ascii=False) + "\n"
    file = pathlib.Path(args.of[1]) if args.of else DATA / "golden.json"
    if args.check:
        sys.exit(0 if file.read_text() == text else f"{file}: differs from what is made now")
    file.write_text(text)


if __name__ == "__main__":
    main()
