"""What the machine says: CPU time and memory of process trees, how busy others are, and who runs where."""

import os
import resource
import subprocess
import time

PROXY_CORE, LOAD_CORE = "0", "1"


def tree(pids):
    """The processes and all their descendants."""
    children = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat") as file:
                    stat = file.read()
            except OSError:
                continue
            parent = int(stat[stat.rindex(")") + 2 :].split()[1])
            children.setdefault(parent, []).append(int(name))
    found, todo = [], list(pids)
    while todo:
        pid = todo.pop()
        found.append(pid)
        todo += children.get(pid, [])
    return found


def cpu(pids):
    """CPU seconds of all threads, to the nanosecond; what ended threads used is lost, so none may end during a run."""
    total = 0
    for pid in tree(pids):
        try:
            for task in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{task}/schedstat") as file:
                    total += int(file.read().split()[0])
        except OSError:
            pass
    return total / 1e9


def memory(pids):
    """Proportional and resident set in KiB."""
    sizes = {"Pss": 0, "Rss": 0}
    for pid in tree(pids):
        try:
            with open(f"/proc/{pid}/smaps_rollup") as file:
                for line in file:
                    key = line.split(":")[0]
                    if key in sizes:
                        sizes[key] += int(line.split()[1])
        except OSError:
            pass
    return sizes


def first(pids, scheduler):
    """Puts processes before everybody else's on this machine, or back. Needs the right to; without it nothing changes."""
    priority = 0 if scheduler == os.SCHED_OTHER else 1
    for pid in tree(pids):
        try:
            for task in os.listdir(f"/proc/{pid}/task"):
                os.sched_setscheduler(int(task), scheduler, os.sched_param(priority))
        except OSError:
            pass


def may_be_first():
    """Whether this user may use real-time scheduling."""
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        return True
    except OSError:
        return False


def many_files():
    """Raises the limit of open files as far as allowed."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for most in (200_000, hard):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, max(most, hard)))
            return
        except (ValueError, OSError):
            continue


def on_load_core(command, urgent, timeout=120):
    """Runs a load generator beside the backend and returns what it printed."""
    before = ["chrt", "-r", "1"] if urgent else []
    done = subprocess.run(
        before + ["taskset", "-c", LOAD_CORE] + command, capture_output=True, text=True, timeout=timeout, check=False
    )
    return done.stdout + done.stderr


class Meter:
    """CPU of some processes and of everybody while a block runs."""

    def __init__(self, pids, others):
        self.pids, self.others = pids, others

    def __enter__(self):
        self.before, self.begun = (cpu(self.pids), cpu(self.others), busy(), spent()), time.time()
        return self

    def __exit__(self, *_):
        self.wall = time.time() - self.begun
        self.cpu = cpu(self.pids) - self.before[0]
        ours = self.cpu + cpu(self.others) - self.before[1] + spent() - self.before[3]
        self.foreign = max(0.0, (busy() - self.before[2] - ours) / self.wall)


def busy():
    """Seconds that all cores were not idle."""
    with open("/proc/stat") as file:
        values = [int(value) / 100 for value in file.readline().split()[1:]]
    return sum(values[:3]) + sum(values[5:8])


def spent():
    """CPU seconds of children that ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
