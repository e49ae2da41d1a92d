"""clip4str batch as a user types it: killed, gone on with, refused."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pytest
from batch_inputs import CROPS, ROOT, batch, command, crops_in, rows, words_of

pytest.importorskip("pyarrow")

import pyarrow.parquet as pq

from clip4str.core.packaged import PACKAGED
from clip4str.runtime import Recognizer, SourceError, UsageError
from clip4str.serving.batch import job as module
from clip4str.serving.batch import stores
from clip4str.serving.batch.batch_command import build_parser, main
from clip4str.serving.batch.job_options import word_options
from clip4str.serving.versions import bundle_version


def parts_in(folder):
    """How many there are; none once it has gone, which may be at any moment."""
    with suppress(FileNotFoundError):
        return len([file for file in folder.iterdir() if re.fullmatch(r"part-.*\.parquet", file.name)])
    return 0


def test_killed_again_and_again_every_input_is_there_once(tmp_path):
    crops, output = crops_in(tmp_path / "crops", copies=5), tmp_path / "words.parquet"
    args = command(crops, "--output", output, "--chunk", 8, "--workers", 1)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    kills = before = 0  # the first time by Ctrl-C
    while kills < 30:
        process = subprocess.Popen(args, env=environment, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            parts = parts_in(tmp_path / "words.parquet.job")
            if parts >= before + 4:
                process.send_signal(signal.SIGKILL if kills else signal.SIGINT)
                kills, before = kills + 1, parts
                process.wait()
                assert not output.exists()
            time.sleep(0.01)
        process.wait()
        if process.returncode not in (-signal.SIGKILL, 130):
            assert process.returncode == 0, process.stderr.read()
            break
    assert kills >= 2
    found, paths = rows(output), sorted(crops.iterdir())
    assert [row["path"] for row in found] == list(map(str, paths))
    with Recognizer.load(PACKAGED, threads=1) as recognizer:
        wanted = words_of(recognizer, CROPS)
    assert all(wanted[row["path"].rpartition("/")[2][4:]] == (row["text"], row["confidence"]) for row in found)
    assert not (tmp_path / "words.parquet.job").exists() and sorted(tmp_path.iterdir()) == [crops, output]
    about = json.loads(pq.ParquetFile(output).metadata.metadata[b"clip4str"])
    assert about["bundle"] == bundle_version(recognizer.manifest) and about["inputs"] == [str(crops)]


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A folder with sixteen crops, the output's name, and clip4str batch over it: exit code, or its error."""
    folder = tmp_path / "crops"
    folder.mkdir()
    for crop in CROPS[:16]:
        (folder / crop.name).write_bytes(crop.read_bytes())
    (folder / "bad.jpg").write_text("bad")
    monkeypatch.setenv("CLIP4STR_BUNDLE", str(PACKAGED))
    return folder, tmp_path / "words.parquet"


def test_a_job_that_is_done_is_not_done_again(small, capsys):
    folder, output = small
    assert main([str(folder), "--output", str(output), "--chunk", "4"]) == 0
    assert "17 rows, 1 with an error" in capsys.readouterr().err
    at = output.stat().st_mtime_ns
    assert main([str(folder), "--output", str(output), "--chunk", "4"]) == 0
    assert "is done already, 17 rows" in capsys.readouterr().err and output.stat().st_mtime_ns == at


DYING = """
import os, sys
from clip4str.serving.batch import job
from clip4str.serving.batch.batch_command import main
job._grouped = lambda tables: os._exit(9)
main(sys.argv[1:])
"""


def test_killed_while_the_output_is_written_nothing_is_left_beside_it(small):
    folder, output = small
    job = [str(folder), "--output", str(output), "--chunk", "4", "--quiet"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    assert subprocess.run([sys.executable, "-c", DYING, *job], env=environment).returncode == 9
    assert {each.name for each in output.parent.iterdir()} == {folder.name, "words.parquet.job"}
    assert main(job) == 0 and len(rows(output)) == 17
    assert {each.name for each in output.parent.iterdir()} == {folder.name, "words.parquet"}


def test_killed_at_any_moment_of_its_last_step(small, monkeypatch):
    """Whatever was deleted then, no words are found later under another job's label."""
    folder, output = small
    left = output.with_name("words.parquet.job")
    job = [str(folder), "--output", str(output), "--chunk", "4", "--quiet"]
    for moment in range(1, 10):
        real, calls = {name: getattr(module.Path, name) for name in ("unlink", "rmdir")}, []

        def dying(name, real=real, calls=calls, moment=moment):
            def delete(path, *args, **how):
                if (path == left or path.parent == left) and path.exists():
                    calls.append(path)
                    if len(calls) >= moment and ".tmp-" not in path.name and output.exists():
                        raise KeyboardInterrupt
                return real[name](path, *args, **how)

            return delete

        with monkeypatch.context() as patch:
            for name in real:
                patch.setattr(module.Path, name, dying(name))
            with contextlib.suppress(KeyboardInterrupt):
                main(job)
        assert output.exists()
        if left.exists() and list(left.iterdir()):
            assert (left / "job.json").exists()
            kept = output.rename(output.with_suffix(".kept"))
            with pytest.raises(UsageError, match="was made with decoding"):
                main([*job, "--refine", "0"])
            kept.rename(output)
        assert main(job) == 0 and not left.exists() and len(rows(output)) == 17
        output.unlink()


def test_parts_without_their_label_are_refused(small):
    folder, output = small
    parts = interrupted(small)
    about = parts[0].parent / "job.json"
    label = about.read_text()
    about.unlink()
    done = batch(folder, "--output", output, "--chunk", 4)
    assert done.returncode == 2 and "but no job.json" in done.stderr
    about.write_text(label.replace(json.loads(label)["id"], "0" * 16))
    done = batch(folder, "--output", output, "--chunk", 4)
    assert done.returncode == 2 and "is a part of another job" in done.stderr
    assert all(part.exists() for part in parts) and not output.exists()


@pytest.mark.parametrize("name, content", [("thesis.txt", "years"), ("job.json", '{"title": "cook"}')])
def test_a_folder_that_is_no_jobs_is_left_alone(small, name, content):
    folder, output = small
    strange = output.with_name("words.parquet.job")
    strange.mkdir()
    (strange / name).write_text(content)
    with pytest.raises(UsageError, match="name another --output"):
        main([str(folder), "--output", str(output), "--quiet"])
    assert (strange / name).read_text() == content and [each.name for each in strange.iterdir()] == [name]


def test_a_file_that_is_no_jobs_is_not_deleted_with_it(small):
    folder, output = small
    parts = interrupted(small)
    (parts[0].parent / "notes.txt").write_text("mine")
    assert main([str(folder), "--output", str(output), "--chunk", "4", "--quiet"]) == 0
    assert [each.name for each in parts[0].parent.iterdir()] == ["notes.txt"]


def test_a_chunk_that_is_missing_is_no_shorter_output(small):
    parts = interrupted(small)
    parts[1].unlink()
    with pytest.raises(UsageError, match="chunk 1 was not read"):
        module.Job(small[1], parts[0].parent, json.loads((parts[0].parent / "job.json").read_text())).finish(0)
    assert not small[1].exists()


def test_a_job_is_known_by_contents_not_by_names(tmp_path):
    checkpoint, characters = tmp_path / "a.pt", tmp_path / "characters.txt"

    def told(*options, content=b"A" * 100, charset="abc"):
        checkpoint.write_bytes(content)
        characters.write_text(charset)
        given = ["x", "--output", "y.parquet", "--bundle", str(checkpoint), "--charset-test", str(characters)]
        return json.dumps(word_options(build_parser().parse_args([*given, *options])))

    other = [
        told(), told(content=b"B" * 100), told(charset="abd"), told("--charset", "0123"),
        told("--image-size", "64x256"), told("--dtype", "float16"), told("--backend", "torch"),
    ]  # fmt: skip
    assert len(set(other)) == len(other) and told() == other[0]
    assert told("--charset-test", "abc") == other[0]


def interrupted(small):
    """A job of which a part is done."""
    folder, output = small
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.Job, "finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            main([str(folder), "--output", str(output), "--chunk", "4", "--quiet"])
    parts = sorted(output.with_name("words.parquet.job").glob("part-*"))
    assert len(parts) == 5
    return parts


@pytest.mark.parametrize(
    "change, said",
    [
        (["--chunk", "5"], "was made with chunk 4, this is 5"),
        (["--refine", "0"], "was made with decoding ar, 1 rounds, cross, this is ar, 0 rounds"),
        (["{folder}"], "was made with inputs"),
        (["--bundle", "{other}"], "was made with bundle clip4str-small-fp32@"),
    ],
)
def test_another_job_is_refused(small, tiny_bundle, change, said):
    folder, output = small
    parts = interrupted(small)
    change = [each.format(folder=folder, other=tiny_bundle) for each in change]
    done = batch(folder, *change, *([] if "--chunk" in change else ["--chunk", 4]), "--output", output)
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and all(part.exists() for part in parts) and not output.exists()


def test_other_inputs_are_refused(small):
    folder, output = small
    interrupted(small)
    (folder / "00-new.jpg").write_bytes(CROPS[0].read_bytes())
    done = batch(folder, "--output", output, "--chunk", 4)
    assert done.returncode == 2 and "the inputs changed since this job began" in done.stderr and not output.exists()


def test_a_part_that_is_damaged_is_named(small):
    folder, output = small
    parts = interrupted(small)
    parts[2].write_bytes(parts[2].read_bytes()[:50])
    done = batch(folder, "--output", output, "--chunk", 4)
    assert done.returncode == 2 and f"{parts[2]}: is damaged" in done.stderr and not output.exists()
    parts[2].unlink()
    assert batch(folder, "--output", output, "--chunk", 4).returncode == 0 and len(rows(output)) == 17


def test_two_at_the_same_job(small):
    folder, output = small
    interrupted(small)
    held = module.lock(output.with_name("words.parquet.job"))
    done = batch(folder, "--output", output, "--chunk", 4)
    module.unlock(held)
    assert done.returncode == 2 and "another process is at this job" in done.stderr


def test_a_store_that_does_not_answer_stops_the_job_and_nothing_is_lost(tmp_path, monkeypatch, capsys):
    """Not as an error of each picture: it is none of theirs."""
    fsspec = pytest.importorskip("fsspec")
    store, output = fsspec.filesystem("memory"), tmp_path / "words.parquet"
    for crop in CROPS[:12]:
        store.pipe(f"/outage/{crop.name}", crop.read_bytes())
    broken, asked, cat_file = {CROPS[6].name, CROPS[2].name}, [], store.cat_file

    def failing(path, *args, **how):
        asked.append(path)
        if any(path.endswith(name) for name in broken):
            raise ConnectionError("reset by peer")
        return cat_file(path, *args, **how)

    monkeypatch.setattr(stores, "WAITS", (0.0, 0.0))
    monkeypatch.setattr(type(store), "cat_file", lambda _, path, *args, **how: failing(path, *args, **how))
    job = ["memory://outage/", "--output", str(output), "--chunk", "3", "--workers", "1", "--bundle", str(PACKAGED)]
    with pytest.raises(SourceError, match=r"cannot be reached \(reset by peer\); run the same command later to go on"):
        main(job)
    assert not output.exists()
    assert max(asked.count(path) for path in asked) == 3  # as often as there are waits, and once
    broken.clear()
    assert main(job) == 0
    assert [row["path"].rpartition("/")[2] for row in rows(output)] == [crop.name for crop in CROPS[:12]]
    assert all(row["text"] for row in rows(output))


@pytest.mark.parametrize(
    "args, said",
    [
        (["--output", "{tmp}/words.csv"], "its name must end in .parquet"),
        (["--output", "{tmp}/none/words.parquet"], "its folder does not exist"),
        (["--output", "{tmp}/words.parquet", "--chunk", "0"], "--chunk is 1 to"),
        (["--output", "{tmp}/words.parquet", "--workers", "0"], "--workers is 1 to"),
        (["--output", "{tmp}/words.parquet", "--bundle", "{tmp}/none"], "no such bundle"),
        (["--output", "{tmp}/other.parquet"], "is no result of a batch job"),
        (["{tmp}/empty", "--output", "{tmp}/words.parquet"], "empty: nothing to read was found there"),
        (["{tmp}/crops", "{tmp}/empty", "--output", "{tmp}/words.parquet"], "empty: nothing to read was found there"),
    ],
)
def test_wrong_input_is_one_line_and_leaves_nothing(small, tmp_path, args, said):
    folder, _ = small
    (tmp_path / "empty").mkdir()
    (tmp_path / "other.parquet").write_bytes(b"PAR1")
    before = sorted(tmp_path.rglob("*"))
    named = [each.format(tmp=tmp_path) for each in args]
    done = batch(*([] if args[0] != "--output" else [folder]), *named)
    assert done.returncode == 2 and said in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before
