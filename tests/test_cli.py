"""The command line: what it prints, its exit codes, and that nobody reads a traceback."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

import ufm
from ufm import cli
from ufm.storage import load

TOML = """
steps = 40

[problem]
type = "UFM"
classes = 3
width = 4

[optimizer]
type = "GD"
lr = {lr}

[decay]
type = "Coupled"
rate = 1e-2
"""
COMMANDS = ("demo", "run", "compare", "claims", "environment", "rerun", "resume", "sweep")


@pytest.fixture
def toml(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(TOML.format(lr=0.1))
    return path


@pytest.fixture
def npz(toml, capsys):
    assert cli.main(["run", str(toml)]) == 0
    capsys.readouterr()
    return toml.with_suffix(".npz")


def start(*arguments, **options):
    """The command in a process of its own."""
    command = [sys.executable, "-m", "ufm", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, **(pipes | options))


def refused(capsys, *arguments):
    """The one sentence that a refused command prints."""
    assert cli.main([str(argument) for argument in arguments]) == 2
    caught = capsys.readouterr()
    assert caught.err.startswith("ufm: ")
    assert caught.err.count("\n") == 1
    return caught.err


def test_run_saves_prints_and_judges(toml, capsys):
    assert cli.main(["run", str(toml)]) == 0
    text = capsys.readouterr().out
    trajectory = load(toml.with_suffix(".npz"))
    assert str(trajectory) in text
    assert f"saved to {toml.with_suffix('.npz')}" in text
    assert str(ufm.compare(trajectory)) in text
    same = ufm.simulate(ufm.UFM(3, 4), ufm.GD(0.1), ufm.Coupled(1e-2), steps=40)
    assert np.array_equal(trajectory.states, same.states)


def test_run_refuses_to_replace_a_file_unless_told(npz, toml, capsys):
    assert "exists; allowed" in refused(capsys, "run", toml)
    assert cli.main(["run", str(toml), "--overwrite"]) == 0


def test_run_checks_its_output_before_it_simulates(toml, tmp_path, capsys):
    assert "no folder" in refused(capsys, "run", toml, "--out", tmp_path / "no" / "run.npz")
    assert "is a folder" in refused(capsys, "run", toml, "--out", tmp_path)


def test_a_diverged_run_is_saved_and_exits_with_1(toml, capsys):
    toml.write_text(TOML.format(lr=1e80))
    assert cli.main(["run", str(toml)]) == 1
    assert "diverged" in capsys.readouterr().out
    assert load(toml.with_suffix(".npz")).status.name == "diverged"


def test_compare_exits_with_0_or_1_as_the_report(npz, capsys, monkeypatch):
    assert cli.main(["compare", str(npz)]) == 0
    report = ufm.compare(load(npz))
    assert capsys.readouterr().out == f"{report}\n"
    monkeypatch.setattr(type(report), "ok", False)
    assert cli.main(["compare", str(npz)]) == 1


@pytest.mark.parametrize(("suffix", "begins"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")])
def test_compare_draws_the_run(npz, tmp_path, suffix, begins):
    picture = tmp_path / f"run{suffix}"
    picture.write_bytes(b"older")
    assert cli.main(["compare", str(npz), "--figure", str(picture)]) == 0
    assert picture.read_bytes().startswith(begins)


def test_compare_refuses_a_figure_of_another_kind_and_a_folder_that_cannot_be(npz, tmp_path, capsys):
    assert "allowed: a name that ends in .png" in refused(
        capsys, "compare", npz, "--figure", tmp_path / "a.gif"
    )
    assert "is no folder" in refused(capsys, "compare", npz, "--figure", npz / "a.png")


def test_compare_as_json_is_strict_json(npz, capsys):
    def no_constant(name):
        raise AssertionError(f"{name} is not JSON")

    assert cli.main(["compare", str(npz), "--json"]) == 0
    found = json.loads(capsys.readouterr().out, parse_constant=no_constant)
    rows = {row["name"]: row for row in found["claims"]}
    assert found["ok"] is True
    assert rows["zhao2026.thm3.2"]["verdict"] == "holds"
    assert 0 <= rows["zhao2026.thm3.2"]["error"] <= rows["zhao2026.thm3.2"]["bound"]
    assert rows["zhao2026.thm3.1"]["error"] is None


def test_compare_as_json_names_the_solution_a_deep_run_has_reached(tmp_path, capsys):
    problem, decay = ufm.DUFM(3, 4, 2), ufm.Coupled(0.01)
    start = ufm.solutions.dnc(problem, decay).start
    ufm.simulate(problem, ufm.GD(0.1), decay, init=start, steps=2).save(tmp_path / "deep.npz")
    cli.main(["compare", str(tmp_path / "deep.npz"), "--json"])
    ending = json.loads(capsys.readouterr().out)["ending"]
    assert ending["name"] == "DNC"
    difference = {row["name"]: row["difference"] for row in ending["solutions"]}
    assert ending["verdict"]
    assert abs(difference["DNC"]) < 1e-12
    assert difference["zero"] < -0.1


def test_claims_lists_all_and_shows_one(capsys):
    from ufm.claims import registry

    assert cli.main(["claims"]) == 0
    text = capsys.readouterr().out
    assert all(name in text.splitlines() for name in registry())
    assert max(map(len, text.splitlines())) <= 110
    claim = registry()["zhao2026.thm3.2"]
    assert cli.main(["claims", claim.name]) == 0
    text = capsys.readouterr().out
    assert claim.statement in text
    assert str(claim.source) in text
    assert "zhao2026.thm3.2" in refused(capsys, "claims", "zhao2026.thm3.22")


def test_claims_about_words_are_listed(capsys):
    from ufm.claims import registry

    assert cli.main(["claims", "Regression minimum"]) == 0
    lines = capsys.readouterr().out.splitlines()
    found = [line for line in lines if line in registry()]
    assert "andriopoulos2024.minimum" in found
    assert 0 < len(found) < 10
    assert lines[-1].startswith(str(len(found)))
    assert "there is no claim 'regression zebra'" in refused(capsys, "claims", "regression zebra")


def test_environment_prints_the_environment(capsys):
    assert cli.main(["environment"]) == 0
    assert capsys.readouterr().out == f"{ufm.environment()}\n"


def test_rerun_is_identical(npz, tmp_path, capsys):
    assert cli.main(["rerun", str(npz), "--out", str(tmp_path / "again.npz")]) == 0
    assert "bit for bit: all 41 records" in capsys.readouterr().out
    assert load(tmp_path / "again.npz").states.tobytes() == load(npz).states.tobytes()


def test_rerun_reports_the_largest_difference(npz, capsys):
    old = load(npz)
    states = old.states.copy()
    states[7, 2] += 0.5
    software = {**old.provenance["software"], "numpy": "0.1"}
    replace(old, states=states, provenance={**old.provenance, "software": software}).save(npz)
    assert cli.main(["rerun", str(npz)]) == 1
    text = capsys.readouterr().out
    assert "different: states by up to 0.5, first at step 7" in text
    assert "numpy was 0.1, is" in text
    assert "fit" not in text


def test_rerun_notices_another_end(npz, capsys):
    old = load(npz)
    replace(old, status=ufm.trajectory.Status("diverged", 40, "")).save(npz)
    assert cli.main(["rerun", str(npz)]) == 1
    assert "diverged at step 40, now completed at 40" in capsys.readouterr().out


def test_resume_continues_bit_for_bit(npz, tmp_path, capsys):
    longer = tmp_path / "longer.npz"
    assert cli.main(["resume", str(npz), "--steps", "60", "--out", str(longer)]) == 0
    whole = ufm.simulate(ufm.UFM(3, 4), ufm.GD(0.1), ufm.Coupled(1e-2), steps=60)
    assert load(longer).states.tobytes() == whole.states.tobytes()
    assert load(npz).end.step == 40
    assert cli.main(["resume", str(npz), "--steps", "50"]) == 0
    assert load(npz).end.step == 50
    capsys.readouterr()
    assert "exists; allowed" in refused(capsys, "resume", npz, "--steps", 60, "--out", longer)
    assert "has taken all 50 steps" in refused(capsys, "resume", npz)
    assert "resume.steps is 10" in refused(capsys, "resume", npz, "--steps", 10)


def test_an_interrupted_rerun_is_compared_where_it_has_records(npz, capsys):
    whole = load(npz)
    part = ufm.simulate(
        whole.problem,
        whole.optimizer,
        whole.run.decay,
        steps=1000,
        init=whole.run.init,
        callback=lambda *_: True,
    )
    assert part.status.name == "stopped"
    part.save(npz)
    assert cli.main(["rerun", str(npz)]) == 0
    assert f"bit for bit: all {len(part)} records" in capsys.readouterr().out


def test_bad_input_is_one_sentence(tmp_path, toml, capsys):
    assert "does not exist" in refused(capsys, "run", tmp_path / "no.toml")
    for command in ("compare", "rerun", "resume"):
        assert "does not exist" in refused(capsys, command, tmp_path / "no.npz")
        assert "damaged" in refused(capsys, command, toml)
    toml.write_text("steps = ")
    assert "not TOML" in refused(capsys, "run", toml)
    toml.write_text(TOML.format(lr=-1))
    assert "GD.lr is -1" in refused(capsys, "run", toml)
    toml.write_text(TOML.format(lr=0.1) + "b = 0.1\n")
    assert "one rate, or rates by block name" in refused(capsys, "run", toml)
    assert not toml.with_suffix(".npz").exists()


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("steps = 40", "steps = 4000000000000000000", "simulate.steps is 4000000000000000000; allowed"),
        (
            "width = 4",
            "width = 4611686018427387904",
            "UFM: GiB of one copy of .* is .*; allowed: at most 1024",
        ),
        ("width = 4", "width = 4\nper_class = 4611686018427387904", "UFM: GiB of one copy"),
        ("classes = 3", "classes = 1000000000", "GiB of one copy of features, weights and logits is"),
        ('"UFM"', '"DUFM"\ndepth = 100000', "DUFM.depth is 100000; allowed: .* <= 10000"),
    ],
)
def test_sizes_that_no_machine_holds_are_refused_at_once(toml, capsys, old, new, sentence):
    toml.write_text(TOML.format(lr=0.1).replace(old, new))
    started = time.perf_counter()
    assert re.search(sentence, refused(capsys, "run", toml))
    assert time.perf_counter() - started < 5
    assert not toml.with_suffix(".npz").exists()


def test_resume_to_a_huge_step_is_refused(npz, capsys):
    assert "steps is 4000000000000000000" in refused(capsys, "resume", npz, "--steps", 4 * 10**18)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes as on Unix")
def test_special_files_are_neither_read_nor_replaced(toml, tmp_path, capsys):
    fifo, loop = tmp_path / "fifo", tmp_path / "loop"
    os.mkfifo(fifo)
    loop.symlink_to(loop)
    for command in ("run", "compare", "rerun", "resume"):
        assert "is a pipe or device" in refused(capsys, command, fifo)
    for out in (fifo, loop):
        assert "a pipe, a device" in refused(capsys, "run", toml, "--out", out, "--overwrite")
    assert fifo.is_fifo()
    assert loop.is_symlink()


def test_run_does_not_replace_its_own_description(toml, tmp_path, capsys):
    link = tmp_path / "link"
    link.symlink_to(toml)
    for out in (toml, link):
        sentence = refused(capsys, "run", toml, "--out", out, "--overwrite")
        assert "is the file that describes the run; allowed: another file" in sentence
    assert toml.read_text() == TOML.format(lr=0.1)


def test_a_name_that_is_too_long_is_one_sentence(toml, capsys):
    assert "name too long" in refused(capsys, "run", "x" * 300)
    assert "name too long" in refused(capsys, "run", toml, "--out", "x" * 300)


def test_a_letter_that_the_locale_lacks_is_escaped(tmp_path):
    toml = tmp_path / "caf\xe9.toml"
    toml.write_text(TOML.format(lr=0.1))
    with start("run", toml, env={**os.environ, "PYTHONIOENCODING": "ascii"}) as process:
        output, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (0, "")
    assert "caf\\xe9.npz" in output


@pytest.mark.skipif(os.name == "nt", reason="descriptors as on Unix")
def test_without_an_output_nothing_is_printed():
    command = f"exec {shlex.quote(sys.executable)} -m ufm claims >&-"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_ctrl_c_during_the_import_is_one_sentence(monkeypatch, capsys):
    from ufm import __main__

    def fail():
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "main", fail)
    assert __main__.main() == 130
    assert capsys.readouterr().err == "ufm: interrupted.\n"


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (KeyboardInterrupt(), 130, "ufm: interrupted.\n"),
        (MemoryError(), 2, "ufm: not enough memory; next: record fewer steps, or take a smaller problem.\n"),
        (OSError(5, "Input/output error", "x"), 2, "ufm: x: Input/output error.\n"),
    ],
)
def test_what_the_system_raises_is_one_sentence(monkeypatch, capsys, error, code, sentence):
    def fail(options):
        raise error

    monkeypatch.setattr(cli, "_environment", fail)
    assert cli.main(["environment"]) == code
    assert capsys.readouterr().err == sentence


def test_demo_is_passed_its_options(monkeypatch):
    import types

    calls = []
    demo = types.SimpleNamespace(main=lambda **options: calls.append(options) or 0)
    monkeypatch.setitem(sys.modules, "ufm.demo", demo)
    assert cli.main(["demo", "--out", "x", "--quick"]) == 0
    assert cli.main(["demo"]) == 0
    assert [str(call["out"]) for call in calls] == ["x", "ufm-demo"]
    assert [call["quick"] for call in calls] == [True, False]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_each_command_shows_an_example(command, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main([command, "--help"])
    assert caught.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert f"example: ufm {command}" in text
    cli._parser().parse_args(shlex.split(text.partition("example: ufm ")[2]))


def test_without_a_command_it_prints_help_and_with_version_the_version(capsys):
    assert cli.main([]) == 0
    text = capsys.readouterr().out
    assert set(re.findall(r"^    (\w+)", text, re.M)) == set(COMMANDS)
    assert "example: ufm demo" in text
    with pytest.raises(SystemExit) as caught:
        cli.main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"ufm {ufm.__version__}\n"


@pytest.mark.parametrize("arguments", [["fly"], ["run"], ["resume", "x.npz", "--steps", "many"]])
def test_arguments_that_do_not_parse_exit_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert "ufm" in capsys.readouterr().err


def test_importing_the_command_line_is_light():
    heavy = "('numba', 'sympy', 'matplotlib', 'xarray', 'tqdm')"
    code = f"import sys, ufm.cli; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_closed_pipe_is_silent():
    process = start("claims")
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(60) == 141


@pytest.mark.skipif(os.name == "nt", reason="signals as on Unix")
def test_ctrl_c_saves_what_was_recorded(tmp_path):
    toml, out = tmp_path / "long.toml", tmp_path / "long.npz"
    # Wide enough to last for minutes; the first run compiles, so that the signals meet the loop.
    text = TOML.replace("width = 4", "width = 4\nper_class = 1000") + '[record]\ntype = "LogSpaced"\n'
    toml.write_text(text.format(lr=0.1))
    with start("run", toml) as process:
        assert process.communicate(timeout=120)[0]
    toml.write_text(text.format(lr=0.1).replace("steps = 40", "steps = 10000000"))
    for delay in (3, 10, 30):
        with start("run", toml, "--overwrite") as process:
            time.sleep(delay)
            process.send_signal(signal.SIGINT)
            output, errors = process.communicate(timeout=120)
        assert "Traceback" not in errors
        assert process.returncode == 130
        if output:
            break
    assert "interrupted at step" in output
    assert f"ufm resume {out}" in errors
    trajectory = load(out)
    assert trajectory.status.name == "interrupted"
    assert trajectory.steps[-1] == trajectory.end.step > 0
    assert trajectory.resume(steps=trajectory.end.step + 5).status.name == "completed"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["long.npz", "long.toml"]
