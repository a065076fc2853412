"""``python -m course_utils``: is this machine ready for the course?"""

import sys

from course_utils.machine import count_problems
from course_utils.solved import by_lesson, recall

if __name__ == "__main__":
    problems = count_problems()
    if solved := recall():
        print(f"Exercises that you have solved: {by_lesson(solved)}.")
    sys.exit(1 if problems else 0)
