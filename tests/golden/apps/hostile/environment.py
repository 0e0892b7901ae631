import os
import sys

print(sorted(os.environ))
print(os.getcwd(), os.environ.get("HOME"))
assert "GOLDEN_SECRET" not in os.environ
assert not any("planted" in value for value in os.environ.values())
os.environ["LEFT_BEHIND"] = "yes"
sys.path.insert(0, "/left/behind")
