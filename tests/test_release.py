"""What a release must agree on: the tag, the package, the changelog, the citation; and one place for the address."""

import os
import pathlib
import re
import shutil
import subprocess
import tomllib

import pytest

import jaxmin

ROOT = pathlib.Path(__file__).parent.parent
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
# In place of .ci/package, which builds and installs: a wheel with nothing but its version.
PACKAGE = """#!/usr/bin/env bash
python3 - "$JAXMIN_DIST" <<'PYTHON'
import pathlib, sys, zipfile
folder = pathlib.Path(sys.argv[1])
folder.mkdir()
with zipfile.ZipFile(folder / "made_up.whl", "w") as wheel:
    wheel.writestr("made_up.dist-info/METADATA", "Name: made-up\\nVersion: {built}\\n\\nVersion: of the text\\n")
PYTHON
"""


def repository(
    folder, version="1.2.0", sections=("1.2.0, 2030-01-31", "1.1.0, 2029-12-01"), cited="1.2.0", built="1.2.0"
):
    """A folder with what .ci/release reads."""
    contents = {
        "jaxmin/__init__.py": f'"""Made up."""\n\n__version__ = "{version}"\n',
        "CHANGELOG.md": "# Changes\n\n"
        + "".join(f"## {section}\n\n### Added\n\n- A thing.\n\n" for section in sections),
        "CITATION.cff": f"cff-version: 1.2.0\nversion: {cited}\n",
        ".ci/package": PACKAGE.format(built=built),
        ".gitignore": "dist/\n",
    }
    for name, text in contents.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, "utf-8")
    (folder / ".ci" / "package").chmod(0o755)
    shutil.copy(ROOT / ".ci" / "release", folder / ".ci")
    return folder


def run(folder, *command):
    # A hook of git's, which may run these tests, says where its own repository is.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def release(folder, *arguments):
    return run(folder, "bash", str(folder / ".ci" / "release"), *arguments)


def refused(outcome, reason):
    return outcome.returncode != 0 and "not fit for release" in outcome.stderr and reason in outcome.stderr


def test_one_version_is_fit(tmp_path):
    outcome = release(repository(tmp_path), "--check", "v1.2.0")
    assert (outcome.returncode, outcome.stdout, outcome.stderr) == (0, "one version: 1.2.0\n", "")


@pytest.mark.parametrize(
    ("tag", "made", "reason"),
    [
        ("v1.3.0", {}, "the tag is v1.3.0; that of jaxmin 1.2.0 is v1.2.0"),
        ("1.2.0", {}, "the tag is 1.2.0;"),
        ("v1.2.00", {}, "the tag is v1.2.00;"),
        ("v1.2.0", {"version": "1.2.0.dev0"}, "that of jaxmin 1.2.0.dev0"),
        ("v", {"version": ""}, "no line of the form"),
        ("v1.2.0", {"sections": ["1.1.0, 2029-12-01"]}, 'the newest section of CHANGELOG.md is "1.1.0, 2029-12-01"'),
        ("v1.2.0", {"sections": ["1.2.01, 2030-01-31"]}, 'the newest section of CHANGELOG.md is "1.2.01, 2030-01-31"'),
        (
            "v1.2.0",
            {"sections": ["1.3.0, 2030-03-01", "1.2.0, 2030-01-31"]},
            'the newest section of CHANGELOG.md is "1.3',
        ),
        ("v1.2.0", {"sections": []}, 'the newest section of CHANGELOG.md is ""'),
        ("v1.2.0", {"sections": ["1.2.0, not yet released"]}, '"1.2.0, not yet released" has no date'),
        ("v1.2.0", {"sections": ["1.2.0"]}, '"1.2.0" has no date'),
        ("v1.2.0", {"cited": "1.1.0"}, 'CITATION.cff has version "1.1.0"'),
    ],
)
def test_two_versions_are_not(tmp_path, tag, made, reason):
    outcome = release(repository(tmp_path, **made), "--check", tag)
    assert refused(outcome, reason), outcome.stderr


def test_a_commit_is_fit_by_its_tag_its_tree_and_its_wheel(tmp_path):
    if shutil.which("git") is None:
        pytest.skip("without git")
    repository(tmp_path)

    def git(*arguments):
        person = ["-c", "user.name=A Name", "-c", "user.email=name@example.invalid"]
        outcome = run(tmp_path, "git", *person, *arguments)
        assert outcome.returncode == 0, outcome.stderr

    def commit(message):
        git("add", "-A")
        git("commit", "-q", "-m", message)

    git("init", "-q")
    commit("First")
    assert refused(release(tmp_path), "HEAD has no tag")
    ahead = release(tmp_path, "v1.2.0")  # a tag that is not made yet
    assert ahead.returncode == 0, ahead.stderr

    git("tag", "v1.2.0")
    for arguments in ((), ("v1.2.0",)):
        outcome = release(tmp_path, *arguments)
        assert outcome.returncode == 0, outcome.stderr
        assert outcome.stdout == "fit for release: v1.2.0, in dist/made_up.whl\n"
    git("tag", "of-another-kind")
    assert refused(release(tmp_path), "HEAD has several tags")

    (tmp_path / "forgotten.py").write_text("")
    assert refused(release(tmp_path, "v1.2.0"), "forgotten.py")
    commit("Second")
    assert refused(release(tmp_path, "v1.2.0"), "the tag v1.2.0 is at")

    repository(tmp_path, built="1.1.0")
    commit("A wheel of another version")
    git("tag", "-f", "v1.2.0")
    assert refused(release(tmp_path), "made_up.whl has version 1.1.0, the package 1.2.0")


def test_the_version_is_written_where_it_is_read():
    """Once for the package, in jaxmin/__init__.py, and once in the citation, which cannot read it."""
    assert SETTINGS["project"]["dynamic"] == ["version"]
    assert SETTINGS["tool"]["hatch"]["version"]["path"] == "jaxmin/__init__.py"
    cited = re.findall(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text("utf-8"), re.MULTILINE)
    assert cited == [jaxmin.__version__]


def test_the_address_is_set_in_one_place():
    """In pyproject.toml, under [tool.jaxmin]; where none is set there, no page and no file knows one."""
    address = SETTINGS["tool"]["jaxmin"]["repository"]
    assert not address or re.fullmatch(r"https://\S+[^\s/]", address), address
    asked = re.compile(r"https?://[^\s\"'<>)\]]*jaxmin" + (f"|{re.escape(address)}" if address else ""), re.IGNORECASE)
    patterns = (
        "*.md",
        "*.toml",
        "*.cff",
        "docs/*.md",
        "docs/*.py",
        "docs/api/*.md",
        "jaxmin/**/*.py",
        ".github/**/*.*",
    )
    files = [path for pattern in patterns for path in sorted(ROOT.glob(pattern))]
    found = [path.name for path in files for _ in asked.findall(path.read_text("utf-8"))]
    assert found == ["pyproject.toml"] * bool(address)
    # A citation may name an address under these keys, which would be a second place.
    keys = re.findall(r"^(url|repository[a-z-]*):", (ROOT / "CITATION.cff").read_text("utf-8"), re.MULTILINE)
    assert not keys


def test_the_conda_recipe_is_the_package():
    """The name, the version, what it needs and the licence."""
    jinja2, yaml = pytest.importorskip("jinja2"), pytest.importorskip("yaml")
    folder = ROOT / "conda.recipe"

    def load_file_regex(load_file, regex_pattern, from_recipe_dir):
        assert from_recipe_dir
        return re.search(regex_pattern, (folder / load_file).read_text("utf-8"))

    text = jinja2.Template((folder / "meta.yaml").read_text("utf-8")).render(load_file_regex=load_file_regex)
    recipe, project = yaml.safe_load(text), SETTINGS["project"]
    assert recipe["package"] == {"name": project["name"], "version": jaxmin.__version__}
    needed = {line.replace(" ", "") for line in recipe["requirements"]["run"]}
    assert needed == {f"python{project['requires-python']}", *project["dependencies"]}
    assert (recipe["about"]["license"], recipe["about"]["summary"]) == (project["license"], project["description"])
    assert (folder / recipe["source"]["path"]).resolve() == ROOT
