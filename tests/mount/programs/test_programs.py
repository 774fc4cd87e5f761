"""Programs that everybody uses, on a mount, unaware that it is none of the machine's disks."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.mount.real_mount import Mount, run, run_python

STANDARD_LIBRARY = Path(sys.modules["json"].__file__ or "").parent.parent
GIT = "git -c user.name=n -c user.email=e@example.org -c init.defaultBranch=main -c gc.auto=0"


def test_cp_keeps_everything(folder: Path, tmp_path: Path) -> None:
    run(f"cp -a {STANDARD_LIBRARY}/json {STANDARD_LIBRARY}/email {tmp_path}; cd {tmp_path}; ln -s json link", tmp_path)
    run("ln json/decoder.py hard; chmod 751 json; touch -d '2001-02-03 04:05:06.789' hard; mkfifo p", tmp_path)
    run(f"cp -a {tmp_path}/. .", folder)
    listing = r"find . ! -name . -printf '%P %y %m %n %U %G %T@ %l\n' | sort"
    assert run(listing, folder) == run(listing, tmp_path)
    run(f"rm p {tmp_path}/p; diff -r {tmp_path} .", folder)


def test_rsync_transfers_what_differs_and_deletes(folder: Path, tmp_path: Path) -> None:
    run(f"cp -a {STANDARD_LIBRARY}/email src", tmp_path)
    command = f"rsync -a --delete --itemize-changes {tmp_path}/src/ {folder}/copy/"
    assert run(command)
    assert run(command) == ""
    run("rm src/charset.py; echo more >> src/utils.py", tmp_path)
    changed = [line.split()[-1] for line in run(command).splitlines() if "./" not in line]
    assert sorted(changed) == ["charset.py", "utils.py"]
    run(f"diff -r {tmp_path}/src {folder}/copy")


def test_tar_there_and_back(folder: Path) -> None:
    run(f"tar -C {STANDARD_LIBRARY} -cf - email json | tar xf -; tar cf all.tar email json; tar df all.tar", folder)
    run(f"diff -r {STANDARD_LIBRARY}/json json", folder)


def test_git(folder: Path, tmp_path: Path) -> None:
    run(f"{GIT} init -q .; cp -r {STANDARD_LIBRARY}/email .; {GIT} add -A; {GIT} commit -qm one", tmp_path)
    for number in range(30):
        run(f"echo {number} >> email/utils.py; {GIT} commit -qam {number}", tmp_path)
    run(f"git clone -q {tmp_path} clone", folder)
    clone = folder / "clone"
    assert run("git status --porcelain; git diff-files", clone) == ""
    run(f"{GIT} checkout -q -b topic HEAD~5; echo x > new; {GIT} add new; {GIT} commit -qm new", clone)
    run(f"{GIT} rebase -q main; git gc -q; git fsck --strict; git repack -adq; git fsck", clone)
    assert run("git status --porcelain; git log --oneline | wc -l", clone) == "32\n"
    run(f"diff -r {tmp_path}/email email", clone)


ROLLBACK = """
import sqlite3, sys
db = sqlite3.connect("db", timeout=180, isolation_level=None)
for number in range(60):
    db.execute("begin immediate")
    (count,) = db.execute("select n from counter").fetchone()
    db.execute("update counter set n = ?", (count + 1,))
    db.execute("insert into log values (?, ?)", (sys.argv[1], number))
    db.execute("commit")
"""


def test_sqlite_from_two_mounts(folder: Path, mount: Mount, other_mount: Mount) -> None:
    elsewhere = other_mount.path / folder.relative_to(mount.path)
    (folder / "writer.py").write_text(ROLLBACK)
    run("sqlite3 db 'create table counter(n); create table log(who, n); insert into counter values(0)'", folder)
    run(f"(cd {elsewhere}; {sys.executable} writer.py b) & other=$!; {sys.executable} writer.py a; wait $other", folder)
    for place in (folder, elsewhere):
        assert run("sqlite3 db 'pragma integrity_check; select n from counter; select count(*) from log'", place) == (
            "ok\n120\n120\n"
        )


def test_sqlite_wal_from_two_processes(folder: Path) -> None:
    (folder / "writer.py").write_text(ROLLBACK)
    run("sqlite3 db 'pragma journal_mode=wal; create table counter(n); create table log(who, n)' > /dev/null", folder)
    run("sqlite3 db 'insert into counter values(0)'", folder)
    run(f"{sys.executable} writer.py b & other=$!; {sys.executable} writer.py a; wait $other", folder)
    assert run("sqlite3 db 'pragma integrity_check; select n from counter'", folder) == "ok\n120\n"


def test_pip_installs_into_it(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
        '[project]\nname = "sample"\nversion = "1"\n[tool.setuptools]\npy-modules = ["sample"]\n'
    )
    (tmp_path / "sample.py").write_text("def greet():\n    return 'hello'\n")
    run(
        f"{sys.executable} -m pip install -q --no-index --no-build-isolation --no-deps --target {folder}/site .",
        tmp_path,
    )
    assert run(f"PYTHONPATH=site {sys.executable} -c 'import sample; print(sample.greet())'", folder) == "hello\n"
    run(f"{sys.executable} -m compileall -q site", folder)


def test_a_build_in_c(folder: Path) -> None:
    (folder / "Makefile").write_text("prog: main.o part.o\n\tcc -o $@ $^\n%.o: %.c part.h\n\tcc -c -o $@ $<\n")
    (folder / "part.h").write_text("int part(void);\n")
    (folder / "part.c").write_text('#include "part.h"\nint part(void) { return 42; }\n')
    (folder / "main.c").write_text('#include <stdio.h>\n#include "part.h"\nint main() { printf("%d\\n", part()); }\n')
    run("make -s -j4", folder)
    assert run("./prog", folder) == "42\n"
    assert "up to date" in run("make", folder)
    run("sed -i s/42/43/ part.c; make -s", folder)
    assert run("./prog", folder) == "43\n"


def test_editors_and_tools_that_replace_files(folder: Path) -> None:
    (folder / "text").write_text("b\na\n")
    run("vim.tiny -es -u NONE -c '%s/b/z/' -c wq text", folder)
    assert run("cat text; sort -o text text; cat text", folder) == "z\na\na\nz\n"
    run("cp text other; mv -f other text; rm -f text; touch text; ls -la > text; find . -name text; du -sk .", folder)


def test_dd_past_the_page_cache(folder: Path, tmp_path: Path) -> None:
    run(f"head -c 5000000 /dev/urandom > {tmp_path}/data; truncate -s 5000k {tmp_path}/data")
    run(f"dd if={tmp_path}/data of=out bs=1000k oflag=direct,sync 2>&1; cmp {tmp_path}/data out", folder)
    run(f"dd if=out iflag=direct bs=64k of={tmp_path}/back conv=fsync 2>&1; cmp {tmp_path}/back out", folder)


def test_fio_verifies_what_it_wrote(folder: Path) -> None:
    run(
        "fio --name=v --directory=. --rw=randwrite --bs=4k --size=4m --numjobs=4 --verify=crc32c --do_verify=1 "
        "--verify_fatal=1 --ioengine=psync --fallocate=none --group_reporting --output=fio.log",
        folder,
    )


def test_python_maps_a_file(folder: Path) -> None:
    run_python(
        "import mmap\nwith open('f', 'wb+') as f:\n f.truncate(1 << 20)\n m = mmap.mmap(f.fileno(), 0)\n"
        " m[500000:500004] = b'here'\n m.flush()\n f.seek(500000)\n assert f.read(4) == b'here'",
        folder,
    )
