from patterns import *

counted = Table("counted")
State().set_value("x", {1: 2, (3, 4): {5}})
print(State().get_value("x"), counted, repr(counted), State(), counted.as_stream())
