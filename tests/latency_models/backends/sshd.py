"""A real sshd on loopback with its own keys, for one test session."""

import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

SSHD = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")


def why_absent() -> str:
    """Return why no sshd can be started here; empty where one can."""
    if SSHD is None or shutil.which("ssh") is None or shutil.which("ssh-keygen") is None:
        return "no sshd, ssh or ssh-keygen here (Debian: openssh-server)"
    if os.geteuid() == 0:
        try:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where an sshd started by root confines itself
        except OSError as error:
            return f"sshd started by root needs /run/sshd: {error}"
    return ""


@dataclass(frozen=True)
class Sshd:
    """A running server.

    Attributes:
        process: It, in the foreground.
        port: On 127.0.0.1.
        identity: Private key that it accepts.
        noisy: Private key whose shell prints lines before it runs a command, as some .bashrc do.
        mute: Private key whose shell prints a line and runs nothing.
        known_hosts: File that holds its host key.
        home: Folder for what a board keeps.
    """

    process: subprocess.Popen
    port: int
    identity: Path
    noisy: Path
    mute: Path
    known_hosts: Path
    home: Path

    @property
    def user(self) -> str:
        return getpass.getuser()

    def options(self) -> dict:
        """Return the fields of an `Ssh` that reaches it."""
        return {
            "host": f"{self.user}@127.0.0.1",
            "port": self.port,
            "identity": str(self.identity),
            "known_hosts": str(self.known_hosts),
            "folder": str(self.home / "board"),
            "connect_s": 5.0,
            "backoff_s": 0.05,
            "ssh_options": ("GlobalKnownHostsFile=/dev/null",),
        }

    def cut(self) -> int:
        """Kill every open connection as a pulled cable would end it; return how many there were."""
        children = _descendants(self.process.pid)
        for pid in children:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        return len(children)


def _descendants(root: int) -> list[int]:
    """Return the sshd processes below `root`; what they run is left to notice by itself."""
    parents, names = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                name, _, rest = (entry / "stat").read_text().partition("(")[2].rpartition(")")
            except OSError:
                continue
            names[int(entry.name)], parents[int(entry.name)] = name, int(rest.split()[1])
    found, level = [], [root]
    while level:
        level = [pid for pid, parent in parents.items() if parent in level and names[pid].startswith("sshd")]
        found += level
    return found


def start(folder: Path) -> Sshd:
    """Start a server whose files all lie in `folder`."""
    for name in ("host", "user", "noisy", "mute"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True, capture_output=True
        )
    forced = {
        "user": "",
        "noisy": r"""command="echo script python files; echo '{1}'; eval \"$SSH_ORIGINAL_COMMAND\"" """,
        "mute": 'command="echo closed for today" ',
    }
    keys = [shell + (folder / f"{name}.pub").read_text() for name, shell in forced.items()]
    (folder / "authorized").write_text("".join(keys))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}")
    (folder / "sshd_config").write_text(
        "\n".join(
            (
                f"Port {port}",
                "ListenAddress 127.0.0.1",
                f"HostKey {folder / 'host'}",
                f"AuthorizedKeysFile {folder / 'authorized'}",
                "PidFile none",
                "StrictModes no",
                "UsePAM no",
                "PermitRootLogin prohibit-password",
                "PasswordAuthentication no",
                "KbdInteractiveAuthentication no",
                "MaxStartups 100",
            )
        )
        + "\n"
    )
    process = subprocess.Popen([SSHD, "-D", "-e", "-f", str(folder / "sshd_config")], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 10.0
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=0.2).close()
            break
        except OSError:
            time.sleep(0.02)
    (folder / "home").mkdir()
    keys = (folder / name for name in ("user", "noisy", "mute"))
    return Sshd(process, port, *keys, folder / "known_hosts", folder / "home")
