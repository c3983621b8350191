"""python -m catalogproc"""

from catalogproc.cli import main

if __name__ == "__main__":
    main()
