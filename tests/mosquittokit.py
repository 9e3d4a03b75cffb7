"""A real mosquitto for tests and for a person, started here and gone with us. It installs nothing."""

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Self

from netkit import HOST, Certificates, Child, answers, free_port

REMEDY = "mosquitto: run scripts/brokers.sh"
START_S = 30.0
USER, PASSWORD = "edge", "the-right-password"
PLACES = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"  # a user's PATH may lack the first of them


def program(name: str) -> str | None:
    return shutil.which(name, path=PLACES)


def is_installed() -> bool:
    return program("mosquitto") is not None


class Mosquitto:
    """One broker, ready when made: open to all, or `secure` with TLS and one user. It forgets all when it ends."""

    def __init__(self, *, port: int | None = None, secure: bool = False) -> None:
        self.port = port or free_port()
        self.url = f"{'mqtts' if secure else 'mqtt'}://{HOST}:{self.port}"
        self._folder = Path(tempfile.mkdtemp(prefix="tickcast-mosquitto-"))
        self.certificates = Certificates(self._folder / "certificates")
        self._config = self._folder / "mosquitto.conf"
        self._child: Child | None = None
        try:
            self._configure(secure)
            self.restart()
        except BaseException:
            self.close()
            raise

    def _configure(self, secure: bool) -> None:
        # As root it would become a user who cannot read its folder.
        lines = [f"user {pwd.getpwuid(os.geteuid()).pw_name}", f"listener {self.port} {HOST}", "log_dest stderr"]
        lines += [f"allow_anonymous {'false' if secure else 'true'}"]
        if secure:
            self.certificates.make()
            users = self._folder / "users"
            passwd = program("mosquitto_passwd") or "mosquitto_passwd"
            subprocess.run([passwd, "-c", "-b", users, USER, PASSWORD], check=True, capture_output=True)
            lines += [f"password_file {users}", f"cafile {self.certificates.ca}"]
            lines += [
                f"certfile {self.certificates.certificate('server')}",
                f"keyfile {self.certificates.key('server')}",
            ]
        self._config.write_text("\n".join(lines) + "\n")

    def kill(self) -> None:
        """SIGKILL."""
        if self._child:
            self._child.kill()

    def restart(self) -> None:
        """On the same port, killed first if it runs; it answers on return."""
        self.kill()
        self._child = Child([program("mosquitto") or "mosquitto", "-c", self._config], self._folder / "log")
        self._child.wait_until(lambda: answers(self.port), f"mosquitto on port {self.port}", limit_s=START_S)

    def log(self) -> str:
        return self._child.log() if self._child else ""

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
