"""Chat template of a model, rendered as an inference server does."""

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

    The environment is that of the transformers library: the special tokens as variables, `tojson` without HTML
    escapes, `raise_exception`, `strftime_now`, `break`/`continue` and the `generation` tag. Like inference servers, it
    renders with `add_generation_prompt` set and without tools.
    """

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        """Compile the template. Raises jinja2.TemplateError if it is invalid."""
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _GenerationTag]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = _strftime_now
        self._template = environment.from_string(source)
        self._special_tokens = dict(special_tokens)

    def render(self, content: str) -> str:
        """Return the prompt for one user message. Raises jinja2.TemplateError if the template refuses it."""
        return self._render([{"type": "text", "text": content}] if self._takes_parts else content)

    @cached_property
    def _takes_parts(self) -> bool:
        """True if the template drops a message that is not a list of parts; servers then pass one text part."""
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
    """`{% generation %}...{% endgeneration %}` marks text for training; here it has no effect."""

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
