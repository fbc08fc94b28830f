"""Arguments of ``dkl reproduce``, ``dkl tables`` and ``dkl runs``, broken manifests and broken records."""

from pathlib import Path

import pytest

from dkl.errors import UserError
from dkl.manifests.manifest import read
from tests.bad_input.conftest import Refuse

ROWS = {
    "reproduce table": "'table' | KEY=VALUE",
    "reproduce table=": "'table=' is not KEY=VALUE",
    "reproduce table=99": "'table-99' | hoose one of | quickstart",
    "reproduce figure=9": "'figure-09' | did you mean figure-03",
    "reproduce table=2 figure=3": "figure=3 and table=2 | give one",
    "reproduce table=2 experiment=quickstart": "experiment=quickstart and table=2 | give one",
    "reproduce experiment=quikstart": "did you mean quickstart?",
    "reproduce tabel=2": "'tabel' | did you mean table?",
    "reproduce seed=1,": "seed=1, | 0,1,2",
    "reproduce seed=1,1": "seed=1,1 | twice",
    "reproduce seed=[1,2]": "seed=[1,2] | whole numbers",
    "reproduce budget=small": "budget=small | mini, own, paper, smoke",
    "reproduce row=ikl-at": "'ikl-at' | did you mean IKL-AT?",
    "reproduce dryrun=true": "'dryrun' | did you mean dry_run?",
    "reproduce dry_run=1": "dry_run=1 | true or false",
    "reproduce =x": "'=x' | KEY=VALUE",
    "reproduce --dry-run": "'--dry-run' | --help",
    "reproduce hydra/launcher=nope": "hydra/launcher=nope | joblib",
    "reproduce trainer.epoch=3": "trainer.epoch | trainer.epochs",
    "reproduce table=two": "number of a table",
    "reproduce experiment=mine.yaml": "mine.yaml | FILE.yaml | quickstart",
    "reproduce loss=kl": "loss=kl contradicts row TRADES",
    "tables --htm": "'--htm' | did you mean --html?",
    "tables results=": "'results=' is not KEY=VALUE",
    "tables smoke=1": "smoke=1 | true or false",
    "tables result=x": "'result' | did you mean results?",
    "tables verified=maybe": "verified=maybe | true or false",
    "tables eps=eight": "'eight'",
    "tables results=missing": "missing/records | dkl train",
    "runs comapre a b": "comapre a b | compares",
    "runs compare a": "not complete",
    "runs compare a b": "results/runs has no run",
    "runs results=missing": "missing/runs has no run",
}

MANIFESTS = {
    "title: [a": "no YAML",
    "[a, b]": "it holds a list",
    "rows: []": "title is missing",
    "title: T\nrow: []": "no field row: did you mean rows?",
    "title: T\nseeds: [0, 0]": "seeds is [0, 0]",
    "title: T\nseeds: one": "seeds",
    "title: T\nrows: [{overrides: []}]": "label is missing",
    "title: T\nrows: [{label: a, quoted: true}, {label: a, quoted: true}]": "two rows named a",
    "title: T\nrows: [{label: a}]": "never evaluated",
    "title: T\nrows: [{label: a, quoted: true, network: official:ikl}]": "network: official:ikl | zoo",
    "title: T\nrows: [{label: a, quoted: true, origin: mine}]": "origin | mine | quoted",
    "title: T\nrows: [{label: a, quoted: true, overrides: [loss=kl]}]": "quoted and has overrides",
    "title: T\nrows: [{label: a, evaluate: [n=1], overrides: [+seed=1]}]": "row a sets +seed=1 | remove it",
    "title: T\nrows: [{label: a, teacher: t, evaluate: [n=1]}]": "the teacher t",
    "title: T\nrows: [{label: a, quoted: true, paper: {robust: 1}}]": "values for robust",
    "title: T\ncolumns: {a: {title: A, metric: test_}}": "'test_' is unknown",
    "title: T\ncolumns: {a: {title: A, metric: robustness}}": "'robustness' | did you mean robust",
    "title: T\ncolumns: {a: {title: A, metric: robust, attacks: nope}}": "attacks=nope",
    "title: T\ncolumns: {a: {title: A, metric: robust, attacks: none}}": "robust accuracy and has attacks",
    "title: T\ncolumns: {a: {title: A, metric: robust, eps: x}}": "eps | 'x'",
    "title: T\ncolumns: {a: {title: A, metric: mean, of: [b]}}": "column a is of b",
    "title: T\nclaims: [{better: a, than: b, column: c}]": "a claim names a, b",
    "title: T\nevaluate: [n=0]": "n=0 must be a whole number from 1",
    "title: T\nevaluate: [[attacks=pgd-5], [eps=8]]": "eps=8 is outside [0, 1]",
    "title: T\npictures: [attack=pgd]": "'attack' | did you mean attacks?",
    "title: T\nrows: [{label: a, evaluate: [weights=bets]}]": "weights=bets | last, average or best",
    "title: T\nrows: [{label: a, evaluate: [attacks=none, eps=0.1]}]": "leave out eps",
    "title: T\nevaluate: {attacks: pgd-20}": "evaluate | must be a list of overrides, such as [attacks=pgd-20]",
    "title: T\nteachers: [1]": "one mapping per teacher",
}


@pytest.mark.parametrize("line", ROWS)
def test_a_line_is_refused(refuse: Refuse, line: str) -> None:
    refuse(line, ROWS[line])


@pytest.mark.parametrize("text", MANIFESTS)
def test_a_broken_manifest_is_named_with_its_field(text: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as refused:
        read(path)
    message = str(refused.value)
    assert message.startswith("mine.yaml: ")
    assert "\n" not in message
    for part in MANIFESTS[text].split(" | "):
        assert part in message


BROKEN_RECORDS = {"text": "nothing", "list": "[1]", "empty": "", "other": '{"id": "other"}', "cut": '{"id": "c'}


@pytest.mark.parametrize("name", BROKEN_RECORDS)
def test_a_broken_record_is_named(refuse: Refuse, tmp_path: Path, name: str) -> None:
    path = tmp_path / "records" / f"{name}.json"
    path.parent.mkdir()
    path.write_text(BROKEN_RECORDS[name])
    refuse(f"tables results={tmp_path}", f"no usable record | {name}.json")
