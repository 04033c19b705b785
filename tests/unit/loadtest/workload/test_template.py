import json

import jinja2
import pytest

from loadtest.workload.template import ChatTemplate


def render(source: str, content: str = "hello", **special: str) -> str:
    return ChatTemplate(source, special).render(content)


def test_a_template_sees_the_message_the_special_tokens_and_the_call_for_an_answer() -> None:
    source = (
        "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m['content'] }}{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}{% if tools %}tools{% endif %}"
    )
    assert render(source, bos_token="<s>") == "<s><user>hello<assistant>"  # noqa: S106  # not a password


def test_whitespace_around_blocks_is_dropped_as_servers_do() -> None:
    assert (
        render("{% for m in messages %}\n    {% if true %}\n{{ m.content }}\n    {% endif %}\n{% endfor %}")
        == "hello\n"
    )


def test_control_statements_and_functions_that_templates_use_are_there() -> None:
    source = (
        "{% for m in messages %}"
        "{% generation %}{{ m.content | tojson }}{% endgeneration %}{% break %}"
        "{% endfor %}"
        "{{ strftime_now('%%') }}"
    )
    assert render(source, content='<"é">') == json.dumps('<"é">', ensure_ascii=False) + "%"


def test_a_template_that_takes_only_parts_gets_one_text_part() -> None:
    source = "{% for part in messages[0].content if part.type == 'text' %}[{{ part.text }}]{% endfor %}"
    assert render(source) == "[hello]"


def test_a_template_that_trims_is_not_taken_for_one_that_loses_the_message() -> None:
    assert render("{% for m in messages %}[{{ m.content | trim }}]{% endfor %}", content=" hello ") == "[hello]"


def test_a_template_cannot_reach_the_interpreter() -> None:
    with pytest.raises(jinja2.TemplateError):
        render("{{ messages.__class__.__mro__[1].__subclasses__() }}")


def test_a_template_may_refuse_the_message() -> None:
    with pytest.raises(jinja2.TemplateError, match="system first"):
        render("{{ raise_exception('system first') }}")


def test_a_text_that_is_no_template_is_refused() -> None:
    with pytest.raises(jinja2.TemplateError):
        ChatTemplate("{% if %}", {})
