"""How many CPUs a process may use: what container engines and schedulers write, under a root of its own."""

from __future__ import annotations

import os

import pytest

from clip4str.core.cpu import available_threads


@pytest.fixture(autouse=True)
def many_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)


V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup rw,nsdelegate\n"
V1 = "33 25 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
DOCKER_V1 = "714 713 0:28 /docker/abc /sys/fs/cgroup/cpu,cpuacct ro master:11 - cgroup cgroup rw,cpu,cpuacct\n"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        pytest.param({}, 64, id="nothing is limited"),
        pytest.param({"sys/fs/cgroup/cpu.max": "200000 100000\n"}, 2, id="version 2, in a namespace"),
        pytest.param({"sys/fs/cgroup/cpu.max": "max 100000\n"}, 64, id="version 2, no quota"),
        pytest.param({"sys/fs/cgroup/cpu.max": "150000 100000\n"}, 2, id="one and a half"),
        pytest.param({"sys/fs/cgroup/cpu.max": "10000 100000\n"}, 1, id="a tenth"),
        pytest.param(
            {
                "proc/self/cgroup": "0::/system.slice/read.service\n",
                "proc/self/mountinfo": V2,
                "sys/fs/cgroup/system.slice/read.service/cpu.max": "300000 100000\n",
            },
            3,
            id="version 2 without a namespace, as systemd does it",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "0::/pods/pod1/container\n",
                "proc/self/mountinfo": V2,
                "sys/fs/cgroup/pods/pod1/container/cpu.max": "max 100000\n",
                "sys/fs/cgroup/pods/pod1/cpu.max": "400000 100000\n",
                "sys/fs/cgroup/pods/cpu.max": "900000 100000\n",
            },
            4,
            id="the smallest of the groups around it",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "11:cpu,cpuacct:/\n3:cpuset:/\n0::/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "200000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            2,
            id="version 1",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "11:cpuacct,cpu:/docker/abc\n",
                "proc/self/mountinfo": DOCKER_V1,
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "500000\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            },
            5,
            id="version 1 in a container that knows its path outside, mounted as the root",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "4:cpu,cpuacct:/batch/job7/step0\n",
                "proc/self/mountinfo": V1,
                "sys/fs/cgroup/cpu,cpuacct/batch/job7/cpu.cfs_quota_us": "600000\n",
                "sys/fs/cgroup/cpu,cpuacct/batch/job7/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/cpu,cpuacct/batch/job7/step0/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu,cpuacct/batch/job7/step0/cpu.cfs_period_us": "100000\n",
            },
            6,
            id="version 1, a batch scheduler's job",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "1:cpu:/group\n0::/\n",
                "proc/self/mountinfo": "31 24 0:27 / /cpus rw - cgroup none rw,cpu\n",
                "cpus/group/cpu.cfs_quota_us": "700000",
                "cpus/group/cpu.cfs_period_us": "100000",
            },
            7,
            id="version 1, mounted elsewhere",
        ),
        pytest.param({"proc/self/cgroup": "0::/../../other\n", "sys/fs/cgroup/cpu.max": "100000 50000"}, 2, id="above"),
        pytest.param({"proc/self/cgroup": "::\n\n", "proc/self/mountinfo": "x - y\n\n - \n"}, 64, id="damaged"),
        pytest.param({"sys/fs/cgroup/cpu.max": "5 0"}, 64, id="a period of nothing"),
    ],
)
def test_threads_are_those_of_the_quota(files, expected, tmp_path):
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert available_threads(tmp_path) == expected


def test_affinity_and_cpusets_count(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5, 7}, raising=False)
    assert available_threads(tmp_path) == 3
