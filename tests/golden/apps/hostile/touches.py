"""What an earlier run of another node or of this one has left is gone."""

import builtins
import os
import sys
import time

assert "LEFT_BEHIND" not in os.environ and "/left/behind" not in sys.path
assert not hasattr(builtins, "left_behind")
builtins.left_behind = True
os.environ["LEFT_BEHIND"] = "yes"
os.chdir("/")
sys.modules["json"].left = True
sys.setrecursionlimit(5000)
time.left = 1
