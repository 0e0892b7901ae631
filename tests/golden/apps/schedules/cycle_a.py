from patterns import State

print("a root without any table")
State().set_value("ran", State().get_value("ran", 0) + 1)
