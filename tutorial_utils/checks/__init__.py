"""Exercise checks, a module for each lesson. Each prints a verdict and never raises."""

from tutorial_utils.checks.lesson_00 import *  # noqa: F403
from tutorial_utils.checks.lesson_01 import *  # noqa: F403
from tutorial_utils.checks.lesson_02 import *  # noqa: F403
from tutorial_utils.checks.lesson_03 import *  # noqa: F403
from tutorial_utils.checks.lesson_04 import *  # noqa: F403
from tutorial_utils.checks.lesson_05 import *  # noqa: F403
from tutorial_utils.checks.lesson_06 import *  # noqa: F403
from tutorial_utils.checks.lesson_07 import *  # noqa: F403
from tutorial_utils.checks.lesson_08 import *  # noqa: F403
