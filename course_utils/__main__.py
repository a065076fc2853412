"""``python -m course_utils``: is this machine ready for the course?"""

import sys

from course_utils.machine import count_problems

if __name__ == "__main__":
    sys.exit(1 if count_problems() else 0)
