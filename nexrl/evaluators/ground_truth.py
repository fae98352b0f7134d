"""Expected answers of a data row."""

from nexrl.errors import RewardError
from nexrl.types import Task


def expected_answers(data: Task) -> list[str]:
    """The accepted answers as text: a row holds one value or a list of them.

    Raises RewardError where the row has none.
    """
    truth = data.ground_truth
    values = truth if isinstance(truth, (list, tuple)) else [truth]
    answers = [str(value) for value in values if value is not None]
    if not answers:
        raise RewardError("the data row has no ground truth (data.ground_truth_key names its column)")
    return answers
