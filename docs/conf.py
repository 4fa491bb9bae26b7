"""How the site is built: sphinx-build -W -b html docs docs/_build."""

import ast
import importlib
import inspect
import os
import pathlib
import re
import tomllib

import jax
import sphinx_gallery.sorting
from docutils import nodes
from docutils.statemachine import StringList
from matplotlib import pyplot
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

import jaxmin
from jaxmin._api import options, show_options
from jaxmin._cache.registry import entries

settings = tomllib.loads((pathlib.Path(__file__).parent.parent / "pyproject.toml").read_text("utf-8"))
project = "jaxmin"
author = settings["project"]["authors"][0]["name"]
copyright = author
release = version = jaxmin.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx-mathjax-offline",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "examples", "gallery/*", "sg_execution_times.rst"]
nitpicky = False

# Not there where the pages are built without the repository.
TESTS = pathlib.Path(__file__).parent.parent / "tests"

LATER = ("choosing", "sets", "watching", "batches", "sharding")

myst_enable_extensions = ["dollarmath", "deflist", "attrs_inline"]
myst_heading_anchors = 3

autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_custom_sections = ["Reference"]
napoleon_use_rtype = False

html_theme = "furo"
html_title = f"jaxmin {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}
if repository := settings["tool"]["jaxmin"]["repository"]:
    html_theme_options |= {"source_repository": repository, "source_branch": "main", "source_directory": "docs/"}
# Beside the sites of other versions, as .ci/site --out builds it, each page links to the list of them.
if tags.has("versions"):  # noqa: F821 - Sphinx defines it
    templates_path = ["_templates"]
    parts = ("brand", "search", "scroll-start", "navigation", "scroll-end")
    html_sidebars = {"**": [*(f"sidebar/{part}.html" for part in parts), "versions.html"]}
# Examples are copied without their prompts and results.
copybutton_prompt_text = r">>> |\.\.\. "
copybutton_prompt_is_regexp = True


# A page shows the first and the last line of a progress bar.
os.environ["TQDM_MININTERVAL"] = "3600"


def fresh(gallery_conf, fname):
    """Each script of the gallery begins with JAX's own settings, and draws for light pages and dark ones."""
    del gallery_conf, fname
    jax.config.update("jax_enable_x64", False)
    pyplot.style.use(["default", pathlib.Path(__file__).parent / "pictures.mplstyle"])


class Numbered(sphinx_gallery.sorting.FileNameSortKey):
    """The scripts by their numbers: 10 comes after 9."""

    def __call__(self, filename):
        return int(filename.split("_")[1])


sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "_gallery",
    "filename_pattern": r"\.py$",
    "within_subsection_order": Numbered,
    "reset_modules": (fresh,),
    "abort_on_example_error": True,
    "show_memory": False,
    "min_reported_time": 10**9,
    "write_computation_times": False,
    "download_all_examples": False,
    "show_signature": False,
    "remove_config_comments": True,
}
suppress_warnings = ["config.cache"]


class Generated(SphinxDirective):
    """A directive that stands for lines made from the code."""

    def run(self):
        section = nodes.section()
        section.document = self.state.document
        self.state.nested_parse(StringList(list(self.lines()), self.name), self.content_offset, section)
        return section.children


class Builders(Generated):
    """``.. builders:: methods``: the builders of a folder, each with its docstring; a new file needs no word here."""

    required_arguments = 1

    def lines(self):
        (folder,) = self.arguments
        module = "jaxmin.transforms" if folder == "transforms" else "jaxmin"
        for name in entries(folder):
            yield from (f".. autofunction:: {module}.{name}", "")


class Names(Generated):
    """``.. names:: minimize plot``: public names in this order; those that this version has not are left out."""

    required_arguments = 1
    final_argument_whitespace = True

    def lines(self):
        for name in self.arguments[0].split():
            if name in jaxmin.__all__:
                kind = "autoclass" if inspect.isclass(getattr(jaxmin, name)) else "autofunction"
                yield from (f".. {kind}:: jaxmin.{name}", *["   :members:"] * (kind == "autoclass"), "")


def table(head, rows):
    """The lines of a table."""
    yield from (".. list-table::", "   :header-rows: 1", "")
    for row in (head, *rows):
        cells = (str(cell).replace("|", r"\|") for cell in row)
        yield from (f"   {'* -' if i == 0 else '  -'} {cell}".rstrip() for i, cell in enumerate(cells))
    yield ""


class Statuses(Generated):
    """``.. statuses::``: the members of jaxmin.Status, as a table."""

    def lines(self):
        rows = []
        for status in jaxmin.Status:
            text = re.sub(r"\{(\w+)[^}]*\}", r"*\1*", status.sentence)
            rows.append((f"{status:d}", status.name, status.success, text))
        return table(("code", "name", "success", "message"), rows)


class Promises(Generated):
    """``.. promises::``: the test files: what each promises, and its number of test functions."""

    def lines(self):
        rows = []
        for file in sorted(TESTS.glob("test_*.py")):
            tree = ast.parse(file.read_text("utf-8"))
            functions = (ast.FunctionDef, ast.AsyncFunctionDef)
            count = sum(isinstance(node, functions) and node.name.startswith("test") for node in ast.walk(tree))
            rows.append((f"``{file.name}``", first_sentence(ast.get_docstring(tree)), count))
        if not rows:
            return ["The tests are in the repository, in ``tests/``."]
        return table(("file", "what it promises", "tests"), rows)


def first_sentence(docstring):
    """The first sentence of a docstring, as reStructuredText."""
    text = re.split(r"(?<=\.)\s+(?=[A-Z`])", " ".join((docstring or "").split()))[0]
    return re.sub(r"(?<!`)`([^`]+)`(?!`)", r"``\1``", text)


# What a method may promise: the head of a column, and whether a method does.
MATRIX = {
    "bounds": lambda entry, method: "box" in method.wants,
    "sets": lambda entry, method: "set" in method.wants,
    "without gradient": lambda entry, method: "grad" not in method.wants,
    "second derivatives": lambda entry, method: (
        "products" if "hv" in method.wants else "matrix" * ("H" in method.wants)
    ),
    "leaves apart": lambda entry, method: method.trees,
    "warm start": lambda entry, method: method.warm_start is not None,
    "line search": lambda entry, method: entry.takes_search,
}


class Matrix(Generated):
    """``.. matrix::``: the built-in methods and what each can do, from the registry."""

    def lines(self):
        rows = [
            (f"``{name}``", *(mark(able(entry, entry.build())) for able in MATRIX.values()))
            for name, entry in entries("methods").items()
        ]
        return table(("method", *MATRIX), rows)


def mark(able):
    return able if isinstance(able, str) else "yes" if able else ""


class Options(Generated):
    """``.. options::``: the options of every call, as a table."""

    def lines(self):
        rows = [*options.TABLE, options.CLIP]
        yield from index(row for row in rows if row.whose not in (options.FIXED, options.REFUSED))
        rows = [(code(row.name, *row.spellings), row.kind, default(row), row.whose, row.text) for row in rows]
        yield from table(("option", "what", "default", "belongs to", "meaning"), rows)


class OptionsOf(SphinxDirective):
    """``.. options-of:: methods``: a section for each builder of a folder, with the options that its name takes."""

    required_arguments = 1

    def run(self):
        (folder,) = self.arguments
        return [self.section(entry) for entry in entries(folder).values()]

    def section(self, entry):
        section = nodes.section(ids=[f"options-of-{entry.name.replace('_', '-')}"], names=[entry.name])
        section += nodes.title("", "", nodes.literal("", entry.name))
        self.state.nested_parse(StringList(list(self.lines(entry)), self.name), self.content_offset, section)
        return section

    def lines(self, entry):
        own, *others = show_options.tables(entry)
        yield from index(own[1])
        # Those of every call stand above; a method has its own defaults of them.
        for title, rows in (own, *others) if entry.package == "methods" else (own,):
            yield from (re.sub("'(.*)'", r"``\1``", title) + ("." if rows else ": none."), "")
            cells = [(code(row.name), code(*row.spellings), code(row.default), row.meaning) for row in rows]
            yield from table(("option", "or", "default", "meaning"), cells) if rows else ()


def index(rows):
    """The lines of an entry in the index for each spelling of an option: a search shows it first."""
    lines = [f"   ! single: {name}" for row in rows for name in (row.name, *row.spellings)]
    return [".. index::", *lines, ""] if lines else []


def default(option):
    """The default of a row of the table of options, as the page shows it."""
    if option.whose == options.REFUSED:
        return ""
    off = option.whose == options.LIMIT and (option.default is None or option.default < 0)
    return "off" if off else code(repr(option.default))


def code(*names):
    return ", ".join(f"``{name}``" for name in names)


def fields(app, what, name, obj, options, lines):
    """Of a NamedTuple's fields, what the comments beside them in the source say."""
    del app, name, options
    if what != "class" or not hasattr(obj, "_fields"):
        return
    source = inspect.getsource(obj)
    said = {field: re.search(rf"^    {field}: .*?  # (.+)$", source, re.MULTILINE) for field in obj._fields}
    if any(said.values()):
        lines += ["", "Fields:", ""]
        lines += [f"- ``{field}``" + (f": {found.group(1)}" if found else "") for field, found in said.items()]
        lines.append("")


def references(app, what, name, obj, options, lines):
    """A list of references is written as a list, one item each."""
    del app, what, name, obj, options
    inside = item = False
    for i, line in enumerate(lines):
        if re.match(r"References?:$", line.strip()):
            inside, item = True, False
        elif line.strip() and not line.startswith(" "):
            inside = False
        elif inside and re.match(r"\s+\[\d\] ", line):
            lines[i], item = re.sub(r"^(\s+)(\[\d\] )", r"\1- \2", line), True
        elif inside and item and line.strip():
            lines[i] = "  " + line


def present(app, docname, source):
    """Of the pages that a table of contents names, those that this version has not are left out."""
    if docname == "index":
        lines = source[0].split("\n")
        source[0] = "\n".join(line for line in lines if line not in LATER or line in app.env.found_docs)


def trim(app, doctree, docname):
    """Blocks that doctest reads end with an empty line, which the page does not need."""
    del app, docname
    for block in doctree.findall(nodes.literal_block):
        text = block.astext().rstrip()
        same = block.rawsource == block.astext()
        block.children = []
        block += nodes.Text(text)
        if same:
            block.rawsource = text


def sourceless(app, pagename, templatename, context, doctree):
    """A page made from a script of the gallery lies in no repository, so it gets no link to its source there."""
    del app, templatename, doctree
    if pagename.startswith("_gallery/"):
        context["page_source_suffix"] = ""


def complete(app, env):
    """Every public name has its place in the reference, or the build fails."""
    documented = {name for name, *_ in env.get_domain("py").get_objects()}
    public = [
        f"{module}.{name}"
        for module in ("jaxmin", "jaxmin.sets", "jaxmin.transforms")
        for name in importlib.import_module(module).__all__
        if not inspect.ismodule(getattr(importlib.import_module(module), name))
    ]
    aliases = {"jaxmin.transforms.value_and_grad_from_state": "jaxmin.value_and_grad_from_state"}
    missing = [name for name in public if aliases.get(name, name) not in documented]
    if missing:
        raise ExtensionError(f"docs/api: these public names are missing: {', '.join(missing)}")


def setup(app):
    app.add_directive("builders", Builders)
    app.add_directive("names", Names)
    app.add_directive("options", Options)
    app.add_directive("options-of", OptionsOf)
    app.add_directive("statuses", Statuses)
    app.add_directive("promises", Promises)
    app.add_directive("matrix", Matrix)
    app.connect("autodoc-process-docstring", fields, priority=300)
    app.connect("autodoc-process-docstring", references, priority=301)  # before napoleon's, at 500
    app.connect("source-read", present)
    app.connect("doctree-resolved", trim)
    app.connect("html-page-context", sourceless)
    app.connect("env-check-consistency", complete)
