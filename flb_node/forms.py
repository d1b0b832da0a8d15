# SPDX-License-Identifier: Apache-2.0
"""From the columns of a dataset to records: which form a row has, and what each column says.

The form is found from the names of the columns, which `dataset.columns` may map. A row that fits two forms is refused
by name, since a guess would decide what the model learns.
"""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from flb_node.examples import ROLES, Example, Message


@dataclass(frozen=True, slots=True)
class Form:
    """One way to write a record. `columns` must be there, `optional` may be."""

    name: str
    columns: tuple[str, ...]
    optional: tuple[str, ...] = ()


FORMS = (
    Form("prompt, completion", ("prompt", "completion")),
    Form("messages", ("messages",)),
    Form("instruction, input, output", ("instruction", "output"), ("input",)),
    Form("prompt, chosen, rejected", ("prompt", "chosen", "rejected")),
    Form("text", ("text",)),
)
COLUMNS = tuple(dict.fromkeys(name for form in FORMS for name in form.columns + form.optional))
"""Every column that a form knows; `dataset.columns` has these keys."""
HINT = 'write {"prompt": "...", "completion": "..."} or {"messages": [...]}, or map columns in dataset.columns'


class Unusable(Exception):
    """A row that is no record; never leaves `flb_node.data`. `kind` is malformed or empty."""

    def __init__(self, what: str, remedy: str, kind: str = "malformed") -> None:
        super().__init__(what)
        self.what, self.remedy, self.kind = what, remedy, kind


def find(present: Iterable[str], columns: Mapping[str, str]) -> Form:
    """The one form whose columns are among `present`; `columns` maps a form's column to the dataset's own name.

    Raises Unusable, with the nearest name, if there is none, and with both names if there are two.
    """
    names = [name for name in present if isinstance(name, str)]
    possible = [form for form in FORMS if set(columns) <= {*form.columns, *form.optional}]
    if not possible:
        raise Unusable(
            f"dataset.columns maps {', '.join(sorted(columns))}, which no form has together",
            f"map the columns of one form: {' or '.join(form.name for form in FORMS)}",
        )
    missing = {form: [name for name in form.columns if columns.get(name, name) not in names] for form in possible}
    whole = [form for form in possible if not missing[form]]
    if len(whole) == 1:
        return whole[0]
    if whole:
        raise Unusable(
            f"has the columns of {len(whole)} forms ({'; '.join(form.name for form in whole)})",
            "say which one is meant in dataset.columns, for example "
            f"{{{', '.join(f'{name}: {name}' for name in whole[0].columns)}}}",
        )
    close = {form: _closest(columns.get(missing[form][0], missing[form][0]), names) for form in possible}
    strange = {form: close[form] is None and len(missing[form]) == len(form.columns) for form in possible}
    nearest = min(possible, key=lambda form: (strange[form], len(missing[form]) - (close[form] is not None)))
    if strange[nearest]:
        raise Unusable(f"has no column that is known here{_listed(names)}", HINT)
    role = missing[nearest][0]
    remedy = HINT
    if meant := close[nearest]:
        remedy = f"did you mean {meant!r}? then set dataset.columns: {{{role}: {meant}}}"
    raise Unusable(f"has no column {columns.get(role, role)!r}{_listed(names)}", remedy)


def _closest(name: str, names: list[str]) -> str | None:
    return next(iter(difflib.get_close_matches(name, names, n=1, cutoff=0.6)), None)


def _listed(names: list[str]) -> str:
    shown = ", ".join(repr(name[:40]) for name in names[:12])
    return f" among {shown}{', ...' if len(names) > 12 else ''}" if names else ""


def record(form: Form, row: Mapping[str, Any], columns: Mapping[str, str]) -> Example:
    """The record of one row. Raises Unusable."""
    names = {name: columns.get(name, name) for name in form.columns + form.optional}
    value = {name: row.get(given) for name, given in names.items()}
    if form.name == "text":
        return Example((), text=_text(value["text"], f"column {names['text']!r}"))
    if form.name == "messages":
        return Example(_conversation(value["messages"], repr(names["messages"])))
    if form.name.startswith("instruction"):
        instruction = _text(value["instruction"], f"column {names['instruction']!r}")
        context = value["input"]
        if context not in (None, "") and _text(context, f"column {names['input']!r}", may_be_empty=True).strip():
            instruction = f"{instruction}\n\n{context}"
        output = _text(value["output"], f"column {names['output']!r}")
        return Example((Message("user", instruction), Message("assistant", output)))
    prompt = _turns(value["prompt"], "user", repr(names["prompt"]))
    if form.name == "prompt, completion":
        return Example((*prompt, *_answer(value["completion"], prompt, repr(names["completion"]))))
    (chosen,) = _answer(value["chosen"], prompt, repr(names["chosen"]))
    (rejected,) = _answer(value["rejected"], prompt, repr(names["rejected"]))
    if chosen == rejected:
        raise Unusable(f"{names['chosen']!r} and {names['rejected']!r} are the same", "remove the record")
    return Example((*prompt, chosen), rejected=rejected)


def _answer(value: object, prompt: tuple[Message, ...], name: str) -> tuple[Message]:
    """The assistant's answer: a text, one message, or the whole conversation with the same prompt in front."""
    turns = _turns(value, "assistant", name)
    if turns[:-1] not in ((), prompt):
        raise Unusable(f"{name} goes on from another conversation than the prompt", "begin both with the same messages")
    if turns[-1].role != "assistant":
        raise Unusable(f"the last message of {name} is not the assistant's", "end with what the model should say")
    return (turns[-1],)


def _conversation(value: object, name: str) -> tuple[Message, ...]:
    if not isinstance(value, list) or len(value) < 2:
        raise Unusable(f"{name} is not a list of at least two messages", HINT)
    messages = _turns(value, "user", name)
    if messages[-1].role != "assistant":
        raise Unusable("the last message is not the assistant's", "end with what the model should say")
    return messages


def _turns(value: object, role: str, name: str) -> tuple[Message, ...]:
    """A text as one message of `role`, or a list of messages."""
    if not isinstance(value, list) or not value:
        return (Message(role, _text(value, f"column {name}")),)
    messages = []
    for index, item in enumerate(value, start=1):
        if not isinstance(item, dict):
            raise Unusable(f"message {index} is not an object", 'write {"role": "...", "content": "..."}')
        for field in ("role", "content"):
            if field not in item:
                raise Unusable(f"message {index} has no field {field!r}", "add it")
        if item["role"] not in ROLES:
            raise Unusable(f"message {index} has an unknown role", f"choose one of {', '.join(ROLES)}")
        messages.append(Message(item["role"], _text(item["content"], f"the content of message {index}")))
    return tuple(messages)


def _text(value: object, what: str, *, may_be_empty: bool = False) -> str:
    if value is None or (isinstance(value, str) and not may_be_empty and not value.strip()):
        raise Unusable(f"{what} is empty", "fill it in or remove the record", "empty")
    if not isinstance(value, str):
        raise Unusable(f"{what} is not a string", HINT)
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:  # JSON can spell half a surrogate pair, which no encoding can write.
        raise Unusable(f"{what} is not valid Unicode", "repair or remove the record") from error
    return value
