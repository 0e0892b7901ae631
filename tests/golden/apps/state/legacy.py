import patterns
from patterns import *
from patterns import InputTable, OutputTable, Stream, TableVersion, node, respond_to_request

assert patterns.__version__ == "1.7.0"
for name in ("Connection", "Parameter", "State", "Stream", "Table", "TableVersion"):
    assert name in globals(), name


@node
def run(ticks=InputTable, stopped=OutputTable, greeting=Parameter(type=str, default="hi"), s=State):
    print(greeting)
