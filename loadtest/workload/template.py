"""The chat template that a server wraps around a message, rendered as the server does."""

import json
from collections.abc import Mapping
from datetime import datetime
from functools import cached_property
from typing import Any, NoReturn

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment


class ChatTemplate:
    """Renders one user message to the text that the model reads.

    Templates are written for the environment that the transformers library gives them: the special tokens as
    variables, `tojson` without HTML escapes, `raise_exception`, `strftime_now`, `break`/`continue` and the
    `generation` tag. Inference servers call it with `add_generation_prompt` set and without tools.
    """

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        """Compile the template; raises jinja2.TemplateError if it is not one."""
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _GenerationTag]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = _strftime_now
        self._template = environment.from_string(source)
        self._special_tokens = dict(special_tokens)

    def render(self, content: str) -> str:
        """Return the prompt for one user message; raises jinja2.TemplateError if the template refuses it."""
        return self._render([{"type": "text", "text": content}] if self._takes_parts else content)

    @cached_property
    def _takes_parts(self) -> bool:
        """Some templates lose a message that is not a list of parts; servers then send one text part."""
        probe = "probe"
        return probe not in self._render(probe)

    def _render(self, content: object) -> str:
        try:
            return self._template.render(
                messages=[{"role": "user", "content": content}],
                tools=None,
                documents=None,
                add_generation_prompt=True,
                **self._special_tokens,
            )
        except jinja2.TemplateError:
            raise
        except Exception as error:  # a template is a program: it can raise anything
            raise jinja2.TemplateError(f"{type(error).__name__}: {error}") from error


class _GenerationTag(Extension):
    """`{% generation %}...{% endgeneration %}` marks words for training; here it marks nothing."""

    tags = {"generation"}  # noqa: RUF012  # as jinja2 declares it

    def parse(self, parser: Parser) -> list[Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _to_json(value: Any, **options: Any) -> str:
    return json.dumps(value, **{"ensure_ascii": False, **options})


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _strftime_now(layout: str) -> str:
    return datetime.now().astimezone().strftime(layout)
