"""`python -m tutorial_utils` runs the doctor: can this machine run the series?"""

import sys

from tutorial_utils.doctor.report import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
