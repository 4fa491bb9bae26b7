"""`.ci/site` finds what is wrong with a site, and lists its versions."""

import importlib.machinery
import importlib.util
import pathlib

import pytest

PATH = pathlib.Path(__file__).parent.parent / ".ci" / "site"
SEARCH = """<div id="search-results"><p class="search-summary">found</p><ul>{}</ul></div>"""


@pytest.fixture(scope="module")
def check():
    """The script as a module."""
    loader = importlib.machinery.SourceFileLoader("ci_site", str(PATH))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("ci_site", loader))
    loader.exec_module(module)
    return module


@pytest.fixture
def site(tmp_path):
    """A function that writes pages into a folder."""

    def written(**pages):
        for name, text in pages.items():
            (tmp_path / f"{name}.html").write_text(f"<!doctype html><meta charset=utf-8>{text}", "utf-8")
        return tmp_path.resolve()

    return written


def test_links_that_lead_nowhere_are_found(check, site):
    right = '<h1 id="top">A</h1><a href="#top">1</a><a href="b.html#end">2</a><a href="https://example.org/">3</a>'
    folder = site(a=right, b='<p id="end"><img src="c.svg"><a href="a.html#end">1</a><a href="d.html">2</a>')
    assert sorted(check.dead_links(folder)) == [
        f"b.html: dead link {link}" for link in ("a.html#end", "c.svg", "d.html")
    ]


def test_the_newest_version_is_first(check, site):
    folder = site()
    for name in ("0.9.0", "0.10.0rc2", "0.10.0", "0.10.0rc10"):
        (folder / name).mkdir()
        (folder / name / "index.html").touch()
    check.list_versions(folder)
    links = check.Page(folder / "index.html").links
    assert links == [f"{name}/index.html" for name in ("0.10.0", "0.10.0rc10", "0.10.0rc2", "0.9.0")]
    assert not [*check.dead_links(folder)]


def test_scripts_that_fail_alone_are_found(check, tmp_path):
    folder = tmp_path / "_downloads" / "0123"
    folder.mkdir(parents=True)
    (folder / "plot_1_right.py").write_text("print(1)")
    (folder / "plot_2_file.py").write_text("open('not_here.csv')")
    (folder / "plot_3_warning.py").write_text("import warnings\nwarnings.warn('rounded')")
    (folder / "plot_4_killed.py").write_text("import os\nos._exit(3)")
    found = [*check.run_alone(tmp_path)]
    assert [line.split()[0] for line in found] == ["plot_2_file.py", "plot_3_warning.py", "plot_4_killed.py"]
    assert "not_here.csv" in found[0] and "UserWarning: rounded" in found[1] and "without a message" in found[2]


def test_a_browser_finds_what_does_not_fit(check, site):
    pytest.importorskip("playwright")
    if not any(map(check.shutil.which, check.CHROMIUM)):
        pytest.skip("no Chromium on PATH")
    nowrap, scrolls = "white-space: pre; width: 100px; overflow: auto", '<div class="content" style="overflow: auto">'
    folder = site(
        right="<pre>x</pre>",
        code=f'<pre style="{nowrap}">a long line of code</pre>',
        page='<div style="width: 2000px">a</div>',
        content=scrolls + '<div style="width: 500px">a</div></div>',
        network='<img src="http://localhost:9/a.png">',
        search=SEARCH.format('<li><a href="faq.html#index-0">Questions</a></li>'),
    )
    found = [*check.looked_at(folder, None)]
    expected = [
        "code.html, 1300 pixels: cut off: a long line of code",
        "code.html, 390 pixels: cut off: a long line of code",
    ]
    expected += [f"page.html, {width} pixels: it is wider than the window" for width in (1300, 390)]
    expected += ["content.html, 390 pixels: it is wider than the window"]
    expected += [f"{(folder / 'network.html').as_uri()}: asks for http://localhost:9/a.png"] * 2
    expected += [
        f"a search for {words} shows faq.html#index-0 first, not {page}"
        for words, page in check.SEARCHES.items()
        if page != "faq.html"
    ]
    assert sorted(found) == sorted(expected)
    site(search=SEARCH.format(""))
    nothing = [line for line in check.looked_at(folder, None) if "search" in line]
    assert nothing == [
        f"a search for {words} shows nothing first, not {page}" for words, page in check.SEARCHES.items()
    ]
