"""Sentences for values that Pydantic refuses."""

from enum import StrEnum
from typing import Annotated, Any, Literal, get_args

import pytest
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic_core.core_schema import ErrorType

from app.core.validation import describe_validation_error

PYDANTIC_WORDS = ("Input", "should", "Field required", "Value error", "permitted", "unable to", "String", "instance")


class _Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")

    count: int = Field(1, ge=1, le=10)
    ratio: float = Field(0.5, gt=0, lt=1, allow_inf_nan=False)
    title: str = Field("x", min_length=1, max_length=5)
    tag: str = Field("xx", min_length=2)
    flag: bool = False
    colour: _Colour = _Colour.RED
    word: Literal["a", "b"] = "a"
    names: list[str] = Field([], max_length=1)
    strict: Annotated[int, Field(strict=True)] = 1
    api_key: SecretStr = SecretStr("")
    large: int = Field(1, le=2**31 - 1, ge=-(2**40))
    checked: Annotated[str, AfterValidator(str.strip), Field(min_length=2, max_length=3)] = "xx"
    secret: SecretStr = Field(SecretStr(""), max_length=3)
    more: dict[str, str] = {}


def _describe(name: str, value: Any) -> str:
    with pytest.raises(ValidationError) as raised:
        _Body.model_validate({name: value})
    problem = raised.value.errors()[0]
    return describe_validation_error(".".join(map(str, problem["loc"])), problem, ["count", "ratio"])


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("count", 0, "count must be 1 or more, not 0"),
        ("count", "x", 'count must be a whole number, not "x"'),
        ("count", 1.5, "count must be a whole number, not 1.5"),
        ("count", None, "count must be a whole number, not null"),
        ("count", [], "count must be a whole number, not a list"),
        ("count", "9" * 5000, "count must be a whole number of fewer digits"),
        ("count", "x" * 100, "count must be a whole number"),
        ("count", "a\nb", "count must be a whole number"),
        ("ratio", 1, "ratio must be less than 1, not 1"),
        ("ratio", -0.5, "ratio must be more than 0, not -0.5"),
        ("ratio", float("nan"), "ratio must be a finite number, not NaN"),
        ("ratio", {}, "ratio must be a number, not a JSON object"),
        ("title", "", "title must not be empty"),
        ("title", "abcdef", "title must have at most 5 characters"),
        ("title", 5, "title must be text, not 5"),
        ("title", "\ud800", "title must be text that UTF-8 can hold"),
        ("tag", "x", "tag must have at least 2 characters"),
        ("flag", "maybe", 'flag must be true or false, not "maybe"'),
        ("colour", "green", "colour must be 'red' or 'blue', not \"green\""),
        ("word", True, "word must be 'a' or 'b', not true"),
        ("names", ["a", "b"], "names must have at most 1 item"),
        ("names", [5], "names.0 must be text, not 5"),
        ("strict", "5", 'strict must be a whole number, not "5"'),
        ("title", 10**4000, "title must be text"),
        ("api_key", 1234, "api_key must be text"),
        ("large", 2**31, "large must be 2147483647 or less, not 2147483648"),
        ("large", -(2**41), "large must be -1099511627776 or more, not -2199023255552"),
        ("checked", "abcd", "checked must have at most 3 characters"),
        ("checked", "a", "checked must have at least 2 characters"),
        ("secret", "abcd", "secret must have at most 3 characters"),
        ("more", "x", 'more must be a JSON object, not "x"'),
        ("other", 1, "other is no field of this request; there are: count, ratio"),
        ("o" * 500, 1, "o" * 100 + " is no field of this request; there are: count, ratio"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_sentence_says_what_is_wrong_and_what_would_be_right(name: str, value: Any, sentence: str) -> None:
    assert _describe(name, value) == sentence


@pytest.mark.parametrize("kind", get_args(ErrorType))
def test_no_error_is_reported_in_the_words_of_pydantic(kind: str) -> None:
    sentence = describe_validation_error(
        "title", {"type": kind, "loc": ("body", "title"), "msg": "Input should be", "input": 5}
    )
    assert sentence.startswith("title")
    assert not any(word in sentence for word in PYDANTIC_WORDS)
