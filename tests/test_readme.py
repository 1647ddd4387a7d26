"""What the README shows is what runs."""

import importlib.util
import re
from pathlib import Path

import ufm
from ufm.claims import registry
from ufm.cli import _parser as parser
from ufm.cli import main
from ufm.config import run_from_toml

COMMANDS = ("demo", "run", "compare", "claims", "environment", "rerun", "resume", "sweep")
TEXT = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.S)


def test_every_block_is_run_here_or_by_the_check_of_a_checkout():
    found = re.findall(r"^```(\w*)\n.*?^```$", TEXT, re.M | re.S)
    assert sorted(found) == ["python", "python", "python", "sh", "sh", "toml", "toml"]


def test_every_command_in_a_sentence_is_one():
    commands = set(re.findall(r"`(ufm [a-z][^`]*)`", TEXT))
    assert {command.split()[1] for command in commands} == set(COMMANDS)
    for command in commands:
        parser().parse_args(command.split()[1:])
    for module in re.findall(r"`python -m ([\w.]+)", TEXT):
        assert importlib.util.find_spec(module) is not None


def test_every_name_in_a_sentence_is_there():
    code = " ".join(re.findall(r"`([^`\n]+)`", TEXT[: TEXT.index("## Proofs")]))
    for name in re.findall(r"\b(?:ufm|metrics|solutions|theory)\.[\w.]*\w", code):
        value = ufm
        for part in name.removeprefix("ufm.").split("."):
            value = getattr(value, part)


def test_two_commands_do_all_the_set_up():
    first, second = blocks("sh")
    assert "venv" in first
    assert "ufm demo" in first
    assert "pytest" in second


def test_first_example_prints_that_the_theorem_holds(capsys):
    exec(blocks("python")[0], {})
    printed = capsys.readouterr().out
    assert re.search(r"zhao2026\.thm3\.2 +holds", printed)
    measured, predicted = map(float, printed.splitlines()[-1].split())
    assert abs(measured - predicted) < 1e-12 * predicted


def test_own_loss_and_optimizers_run(capsys):
    space = {}
    exec(blocks("python")[1], space)
    assert capsys.readouterr().out == "False\n"
    for name in ("elementwise", "matrix"):
        assert space[name].status.name == "completed"
        assert space[name].loss[-1] < space[name].loss[0]


def test_what_it_knows_runs(capsys):
    space = {}
    exec(blocks("python")[2], space)
    printed = capsys.readouterr().out
    assert "above the global minimum" in printed
    assert "((0,), (1,), (2, 3))" in printed
    assert dict(space["data"].sizes) == {
        "lr": 2,
        "rate": 2,
        "seed": 5,
        "record": space["data"].sizes["record"],
    }


def test_sweep_file_describes_a_grid(tmp_path):
    path = tmp_path / "grid.toml"
    path.write_text(blocks("toml")[1], encoding="utf-8")
    assert main(["sweep", str(path), "--dry-run", "--out", str(tmp_path / "grid")]) == 0
    assert not (tmp_path / "grid").exists()


def test_configuration_file_is_the_first_example(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(blocks("toml")[0], encoding="utf-8")
    run = run_from_toml(path)
    assert run.problem == ufm.UFM(classes=10, width=64, per_class=5)
    assert (run.optimizer, run.decay) == (ufm.Momentum(0.1, 0.9), ufm.Coupled(5e-4))
    assert (run.steps, run.record) == (2000, ufm.LogSpaced(100))


def test_every_claim_stands_in_the_table_of_proofs():
    section = TEXT[TEXT.index("## Proofs") : TEXT.index("## Symbols")]
    assert set(re.findall(r"`((?:ufm|[a-z]+20\d\d)\.[\w.]+)`", section)) == set(registry())


def test_table_cells_hold_no_bare_pipes():
    rows = [line for line in TEXT.splitlines() if line.startswith("|")]
    assert all(line.count("|") in (3, 5, 6) for line in rows)
