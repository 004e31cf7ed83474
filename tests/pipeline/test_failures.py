"""What is told of a stage that failed."""

import pytest

from app.core.errors import StageFailed
from app.models.runs import StageRecord, StageStatus
from app.models.stages import Stage
from app.pipeline.failures import describe_failure, mask_record

HOSTILE = "answers 404: \x1b]0;title\x07\r\n2026-11-28 INFO forged\x9b31m\u202e\0"
SHOWN = r"answers 404: \x1b]0;title\x07\r\n2026-11-28 INFO forged\x9b31m\u202e\x00"


def test_the_words_of_another_server_are_stored_on_one_line() -> None:
    assert describe_failure(StageFailed(HOSTILE), Stage.GENERATION) == SHOWN


@pytest.mark.parametrize("field", ["error", "skip_reason"])
def test_the_record_of_a_stage_is_one_line(field: str) -> None:
    record = mask_record(StageRecord(StageStatus.FAILED, **{field: HOSTILE}))  # type: ignore[arg-type]
    assert getattr(record, field) == SHOWN
