"""Archives as tests want them, good ones and bad ones."""

import io
import tarfile
import zipfile
from collections.abc import Iterable, Mapping


def a_tar(members: Iterable[tuple[tarfile.TarInfo, bytes]], packing: str = "gz") -> bytes:
    """A tar archive of headers and contents."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode=f"w:{packing}") as archive:  # type: ignore[call-overload] # as named
        for header, content in members:
            archive.addfile(header, io.BytesIO(content))
    return made.getvalue()


def a_header(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0, **fields: object) -> tarfile.TarInfo:
    """One header."""
    header = tarfile.TarInfo(name)
    header.type, header.size = kind, size
    for field, value in fields.items():
        setattr(header, field, value)
    return header


def a_file(name: str, content: bytes = b"x", mode: int = 0o644) -> tuple[tarfile.TarInfo, bytes]:
    """One file of a tar archive."""
    return a_header(name, size=len(content), mode=mode), content


def a_zip(members: Mapping[str, bytes], modes: Mapping[str, int] | None = None) -> bytes:
    """A zip archive; *modes* are those of its members with their file type."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (modes or {}).get(name, 0) << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, content)
    return made.getvalue()
