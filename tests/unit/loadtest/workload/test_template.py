import json

import jinja2
import pytest

from loadtest.workload.template import ChatTemplate


def render(source: str, content: str = "hello", **special: str) -> str:
    return ChatTemplate(source, special).render(content)


def test_template_gets_message_and_special_tokens() -> None:
    source = (
        "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m['content'] }}{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}{% if tools %}tools{% endif %}"
    )
    assert render(source, bos_token="<s>") == "<s><user>hello<assistant>"  # noqa: S106  # not a password


def test_whitespace_around_blocks_is_dropped() -> None:
    assert (
        render("{% for m in messages %}\n    {% if true %}\n{{ m.content }}\n    {% endif %}\n{% endfor %}")
        == "hello\n"
    )


def test_template_functions_are_available() -> None:
    source = (
        "{% for m in messages %}"
        "{% generation %}{{ m.content | tojson }}{% endgeneration %}{% break %}"
        "{% endfor %}"
        "{{ strftime_now('%%') }}"
    )
    assert render(source, content='<"é">') == json.dumps('<"é">', ensure_ascii=False) + "%"


def test_parts_only_template_gets_a_text_part() -> None:
    source = "{% for part in messages[0].content if part.type == 'text' %}[{{ part.text }}]{% endfor %}"
    assert render(source) == "[hello]"


def test_trimming_template_keeps_plain_text() -> None:
    assert render("{% for m in messages %}[{{ m.content | trim }}]{% endfor %}", content=" hello ") == "[hello]"


def test_template_cannot_reach_the_interpreter() -> None:
    with pytest.raises(jinja2.TemplateError):
        render("{{ messages.__class__.__mro__[1].__subclasses__() }}")


def test_template_may_refuse_the_message() -> None:
    with pytest.raises(jinja2.TemplateError, match="system first"):
        render("{{ raise_exception('system first') }}")


def test_invalid_template_is_refused() -> None:
    with pytest.raises(jinja2.TemplateError):
        ChatTemplate("{% if %}", {})
