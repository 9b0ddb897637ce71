"""python main.py --dataset gscdv2 --step prepare|feature|pretrain|retrain … (--help explains; as `deltarnn STEP …`)."""

import sys

from deltarnn.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or ["--help"]))
