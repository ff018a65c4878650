"""The token that is shown with every call."""

from pathlib import Path

from ccms_client.errors import TokenFileError


class FixedToken:
    """A token that was given."""

    def __init__(self, token: str) -> None:
        self._token = token

    def read(self) -> str:
        """The token."""
        return self._token


class TokenFile:
    """A file with a token, which is read again whenever it has changed: tokens expire, and files are renewed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._version: tuple[int, int, int] | None = None
        self._token = ""

    def read(self) -> str:
        """The token.

        Raises:
            TokenFileError: The file cannot be read, or is empty.
        """
        try:
            status = self._path.stat()
            version = (status.st_ino, status.st_mtime_ns, status.st_size)
            if version != self._version:
                self._token = self._path.read_text(encoding="ascii").strip()
                self._version = version
        except (OSError, UnicodeDecodeError) as error:
            raise TokenFileError(f"the token file {self._path} cannot be read: {error}") from error
        if not self._token:
            raise TokenFileError(f"the token file {self._path} is empty: write a JSON Web Token to it")
        return self._token
