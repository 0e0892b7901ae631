"""What a process takes from the machine that it runs on: options or their variables, secrets, a folder for itself, memory."""

from tailrace.process.folder import take_folder
from tailrace.process.memory import settle_memory
from tailrace.process.options import OPTIONS, REQUIRED, Option, service_parser
from tailrace.process.variables import connection_variable, secret_variable

__all__ = [
    "OPTIONS",
    "REQUIRED",
    "Option",
    "connection_variable",
    "secret_variable",
    "service_parser",
    "settle_memory",
    "take_folder",
]
