"""What is wrong with the desired state, and where: one clear error a fault."""

from trueup.models.codec import Model


class SpecError(Model, frozen=True, kw_only=True):
    """An error of a document: *file* relative to its root, *line* and *column* from 1 (0: the file as a whole)."""

    file: str = ""
    line: int = 0
    column: int = 0
    path: str = ""
    message: str
    hint: str = ""
    kind: str = ""
    name: str = ""

    def __str__(self) -> str:
        place = self.file
        if self.line:
            place += f":{self.line}:{self.column}"
        words = [part for part in (place, self.path, self.message) if part]
        return ": ".join(words) + (f"; {self.hint}" if self.hint else "")
