from patterns import Parameter

key = Parameter("api key")
raise AssertionError("not reached")
