"""YAML files: plain values are read as PyYAML reads them, and everything else is one line within a second."""

import time

import pytest
import yaml

from paddle_rt.errors import UserError
from paddle_rt.yaml_file import MOST_BYTES, MOST_VALUES, parse_yaml, read_yaml
from tests.helpers import ROOT

ALIASES = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9)
)
REFUSED = {
    "tag": ("a: !!python/name:os._exit ''", "f.yml, line 1: a: tags such as !!python/name:os._exit are not read"),
    "object": ("a: !!python/object/apply:os.getcwd []", "tags such as !!python/object/apply:os.getcwd"),
    "plain tag": ("a: !!str 3", "a: tags such as !!str"),
    "own tag": ("a:\n- !mine {b: 1}", r"line 2: a\[0\]: tags such as !mine"),
    "aliases": (ALIASES, rf"line 5: a\d\[\d\].*more than {MOST_VALUES} values"),
    "many values": ("[" + "1," * MOST_VALUES + "]", f"more than {MOST_VALUES} values"),
    "flow depth": ("a: " + "[" * 50_000, "more than 32 levels deep"),
    "block depth": ("\n".join(" " * n + "a:" for n in range(300)), "line 34: a.a.a.*more than 32 levels deep"),
    "circle": ("a: &a [1, *a]", r"a\[1\]: the alias \*a is part of what it stands for"),
    "no anchor": ("a: *b", "found undefined alias 'b'"),
    "long number": ("batch_size: " + "9" * 5000, "batch_size: a number of 5000 digits is too large"),
    "large number": ("a: {b: 9223372036854775808}", "a.b: 9223372036854775808 is too large; numbers go up to 922337"),
    "small number": ("a: -9223372036854775809", "a: -9223372036854775809 is too large"),
    "hexadecimal": ("a: 0x_", "a: 0x_ is no number"),
    "sexagesimal": ("a: 1" + ":59" * 9999, "a: a number of 29998 digits is too large"),
    "NUL": ('a: "b\\0c"', "a: the text holds a NUL character"),
    "surrogate": ('a: "\\ud800"', "a: the text holds .* half of a surrogate pair"),
    "escape": ('a: "\\U99999999"', "unknown escapes"),
    "control": ("a: \x07", "control characters"),
    "twice": ("a: {b: 1, c: 2, b: 3}", "line 1: a: the key 'b' occurs twice"),
    "key": ("{[1]: 2}", "a key must be a word"),
    "brackets": ("a: [1", "f.yml is not valid YAML, line 1: while parsing a flow sequence"),
    "documents": ("a: 1\n---\nb: 1", "line 2: expected a single document"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_plain_value_is_one_line(kind):
    text, match = REFUSED[kind]
    start = time.process_time()
    with pytest.raises(UserError, match=match) as raised:
        parse_yaml(text, "f.yml")
    seconds = time.process_time() - start
    assert seconds < 3, f"took {seconds:.1f} s"
    line = str(raised.value)
    assert line.startswith("f.yml") and "\n" not in line and len(line) < 300, line


def test_plain_values_are_those_of_pyyaml():
    text = (
        "a: &a {x: 1, y: [1.5, -.inf, 010, 1:30, yes, null, ~, '3', 1e-3]}\nb: {<<: *a, z: *a}\n9: -9223372036854775807"
    )
    assert repr(parse_yaml(text, "")) == repr(yaml.safe_load(text))
    assert parse_yaml("a: 2020-01-01\nb: =", "") == {"a": "2020-01-01", "b": "="}, "dates are texts"
    assert parse_yaml("", "") is None
    for path in (ROOT / "configs").rglob("*.yml"):
        assert read_yaml(path) == yaml.safe_load(path.read_text()), path


def test_files(tmp_path):
    (tmp_path / "bom.yml").write_bytes("﻿a: ä".encode())
    assert read_yaml(tmp_path / "bom.yml") == {"a": "ä"}
    (tmp_path / "bytes.yml").write_bytes(b"a: \xff\xfe")
    with pytest.raises(UserError, match="bytes.yml is not valid YAML: it is not UTF-8 text"):
        read_yaml(tmp_path / "bytes.yml")
    (tmp_path / "long.yml").write_bytes(b"#" * (MOST_BYTES + 1))
    with pytest.raises(UserError, match=rf"long.yml has \d+ bytes, expected at most {MOST_BYTES} \(config file\)"):
        read_yaml(tmp_path / "long.yml", "config file")
    with pytest.raises(UserError, match="no YAML file at .*none.yml"):
        read_yaml(tmp_path / "none.yml")
