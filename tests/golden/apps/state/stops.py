from patterns import State, Table

stopped = Table("stopped", "w")
stopped.append({"a": 1})
State().set_value("stopped", True)
exit()
stopped.append({"a": 2})
