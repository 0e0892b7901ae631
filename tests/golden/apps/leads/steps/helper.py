from dataclasses import dataclass, field

from ..shared import CITIES


@dataclass
class Lead:
    email: str
    amount: float | None = None
    tags: list[str] = field(default_factory=list)

    @property
    def city(self) -> str:
        match self.email.rpartition(".")[2]:
            case "de":
                return CITIES["de"]
            case _:
                return "elsewhere"
