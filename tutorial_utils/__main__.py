"""`python -m tutorial_utils`: will this machine run the series?"""

import sys

from .doctor import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
