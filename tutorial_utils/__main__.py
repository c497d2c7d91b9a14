"""`python -m tutorial_utils`: will this machine run the series?"""

import sys

from tutorial_utils.doctor.report import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
