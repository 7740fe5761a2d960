"""The marks of a module whose tests play whole deployments in trouble."""

import pytest

MARKS = [
    pytest.mark.usefixtures("quiet"),
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
