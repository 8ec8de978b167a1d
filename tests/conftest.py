"""What holds for all tests."""

import os

# Whether a graph runs op by op or as a program is not to depend on what ran before.
os.environ.setdefault("TREADLE_KEEP_PROGRAMS", "off")
