"""A Slurm cluster of this machine alone, for tests: everything below one folder, no accounting, no control groups."""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

MISSING = [name for name in ("slurmctld", "slurmd", "munged", "sbatch") if shutil.which(name) is None]
WHY_NOT = f"needs {', '.join(MISSING)}" if MISSING else "needs root" if os.geteuid() else ""
START_S = 30.0
CONFIGURATION = """
ClusterName=mini
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/builtin
SchedulerParameters=sched_interval=1
KillWait=5
ReturnToService=2
MailProg=/bin/true
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=8000 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


@contextlib.contextmanager
def started(folder: Path) -> Iterator[dict[str, str]]:
    """Start the daemons below a folder with a short path; the variables by which Slurm's commands find them."""
    for name in ("state", "spool", "log"):
        (folder / name).mkdir(parents=True)
    key, settings, host = folder / "munge.key", folder / "slurm.conf", socket.gethostname().split(".")[0]
    key.write_bytes(secrets.token_bytes(1024))
    key.chmod(0o600)
    settings.write_text(CONFIGURATION.format(host=host, folder=folder, ports=_free_ports(2)))
    environment = {"SLURM_CONF": str(settings)}
    paths = {"socket": "munge.sock", "pid-file": "munged.pid", "log-file": "log/munged.log", "seed-file": "munge.seed"}
    options = [f"--{option}={folder / name}" for option, name in paths.items()]
    run = {"env": os.environ | environment, "check": True, "capture_output": True}
    subprocess.run(["munged", "--force", f"--key-file={key}", *options], **run)
    try:
        subprocess.run(["slurmctld"], **run)
        subprocess.run(["slurmd", "-N", host], **run)
        patience = time.monotonic() + START_S
        while subprocess.run(["sinfo", "--noheader", "--format=%t"], **run).stdout.split() != [b"idle"]:
            assert time.monotonic() < patience, (folder / "log" / "slurmctld.log").read_text()
            time.sleep(0.1)
        yield environment
    finally:
        subprocess.run(["scancel", "--user=root"], env=run["env"], capture_output=True, check=False)
        subprocess.run(["scontrol", "shutdown"], env=run["env"], capture_output=True, check=False)
        for name in ("slurmd.pid", "slurmctld.pid", "munged.pid"):
            with contextlib.suppress(OSError, ValueError):
                os.kill(daemon := int((folder / name).read_text()), signal.SIGTERM)
                patience = time.monotonic() + 3
                while Path(f"/proc/{daemon}").exists() and time.monotonic() < patience:  # it writes its state
                    time.sleep(0.05)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
