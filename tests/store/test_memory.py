import mmap
from pathlib import Path

import pytest

from tracklearn.store import memory

GB = 1 << 30


def machine(root, *, total=16, available=8, groups="", files=()):
    """A root folder with /proc and /sys as Linux has them; sizes in GiB, `files` as (path, text)."""
    proc = root / "proc"
    (proc / "self").mkdir(parents=True)
    lines = [
        f"MemTotal: {total << 20} kB",
        f"MemAvailable:  {available << 20} kB",
        "HugePages_Total:       0",
    ]
    (proc / "meminfo").write_text("\n".join(lines) + "\n")
    (proc / "self" / "cgroup").write_text(groups)
    for path, text in files:
        file = root / "sys/fs/cgroup" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")
    return root


def version_2(folder, limit, used, inactive=0):
    return [
        (f"{folder}memory.max", limit),
        (f"{folder}memory.current", used),
        (f"{folder}memory.stat", f"anon 5\ninactive_file {inactive}"),
    ]


def version_1(folder, limit, used, inactive=0):
    return [
        (f"memory/{folder}memory.limit_in_bytes", limit),
        (f"memory/{folder}memory.usage_in_bytes", used),
        (f"memory/{folder}memory.stat", f"inactive_file 7\ntotal_inactive_file {inactive}"),
    ]


def test_without_groups_it_is_the_machine(tmp_path):
    root = machine(tmp_path)
    assert memory.total(root) == 16 * GB
    assert memory.available(root) == 8 * GB


@pytest.mark.parametrize(
    ("groups", "files"),
    [
        ("0::/\n", version_2("", 4 * GB, 3 * GB, GB)),
        ("0::/a/b\n", version_2("a/b/", "max", 3 * GB) + version_2("a/", 4 * GB, 3 * GB, GB)),
        ("3:cpu,cpuacct:/x\n4:memory:/x\n0::/\n", version_1("x/", 4 * GB, 3 * GB, GB)),
        # A container of version 1 is told the machine's path, but sees its own group at the top.
        ("4:memory:/docker/abc\n", version_1("", 4 * GB, 3 * GB, GB)),
    ],
)
def test_a_group_around_the_process_limits_it(tmp_path, groups, files):
    root = machine(tmp_path, groups=groups, files=files)
    assert memory.total(root) == 4 * GB
    assert memory.available(root) == 2 * GB  # files that the system would give up do not count as used


def test_a_group_without_a_limit_changes_nothing(tmp_path):
    unlimited = version_1("x/", 9223372036854771712, GB) + version_2("", "max", GB)
    root = machine(tmp_path, groups="4:memory:/x\n0::/\n", files=unlimited)
    assert (memory.total(root), memory.available(root)) == (16 * GB, 8 * GB)


def test_a_full_group_has_nothing_left(tmp_path):
    root = machine(tmp_path, groups="0::/\n", files=version_2("", 4 * GB, 5 * GB))
    assert memory.available(root) == 0


@pytest.mark.parametrize(
    ("groups", "files"),
    [
        ("0::/\n", [("memory.max", ""), ("memory.current", "5")]),
        ("0::/\n", version_2("", "-1", GB)),
        ("0::/\n", version_2("", GB, "much")),
        ("\n\n0\n4:memory\ngarbage\n", version_2("a/", GB, 0)),
    ],
)
def test_what_cannot_be_read_does_not_limit(tmp_path, groups, files):
    root = machine(tmp_path, groups=groups, files=files)
    (root / "proc/meminfo").write_bytes(
        b"\n  total: used:\nMemTotal: 16777216 kB\n\xff\nMemAvailable: 8388608 kB"
    )
    assert (memory.total(root), memory.available(root)) == (16 * GB, 8 * GB)


def test_a_limit_counts_without_its_details(tmp_path):
    limit, used, stat = version_2("", 4 * GB, GB)
    for files in ([limit, used], [limit, used, (stat[0], "inactive_file many")]):
        root = machine(tmp_path / str(len(files)), groups="0::/\n", files=files)
        assert (memory.total(root), memory.available(root)) == (4 * GB, 3 * GB)


def test_a_limit_on_address_space_counts():
    resource = pytest.importorskip("resource")
    bound = resource.getrlimit(resource.RLIMIT_AS)
    before = memory.available()
    used = memory.total() + GB  # more than this process can have mapped
    try:
        resource.setrlimit(resource.RLIMIT_AS, (used, bound[1]))
        assert memory.total() <= used
        resource.setrlimit(resource.RLIMIT_AS, (10 * GB, bound[1]))
        assert memory.total() <= 10 * GB
        assert memory.available() < min(before, 10 * GB)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, bound)


def test_where_nobody_says(tmp_path, monkeypatch):
    assert memory.total(tmp_path) is None
    assert memory.available(tmp_path) is None
    monkeypatch.setattr(memory, "_meminfo", lambda root, name: None)
    monkeypatch.setattr(memory, "_limits", lambda root: iter(()))
    assert memory.total() > 1e8  # sysconf knows, as on macOS
    monkeypatch.delattr("os.sysconf")
    assert memory.total() is None


@pytest.mark.skipif(not Path("/proc/meminfo").is_file(), reason="the system does not tell what is available")
def test_this_machine():
    assert 1e8 < memory.available() <= memory.total()


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="no /proc that counts peaks")
def test_the_peak_begins_anew():
    memory.reset_peak()
    before = memory.peak()
    with mmap.mmap(-1, 64 << 20) as block:  # goes back to the system, whatever the allocator keeps
        for page in range(0, 64 << 20, 1 << 12):
            block[page] = 1
    high = memory.peak()
    assert high >= before + (60 << 20)
    memory.reset_peak()
    assert memory.peak() < high


def test_no_peak_where_nobody_tells_it(tmp_path):
    assert memory.peak(machine(tmp_path)) is None
    memory.reset_peak(tmp_path / "nowhere")
