"""Settings of every test run."""

import os

# Test processes run side by side: one thread each, so that they do not compete. Before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
