"""Names like those of the platform, at module level."""

import pandas as pd
from patterns import Table

session = table = node = run = records = order = print_ = None
__name__ = "something else"
globals()["patterns"] = None
del pd
assert Table("posts").is_connected
