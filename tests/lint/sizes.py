"""Keeps files and functions small enough to be read in one go."""

import ast
import re

from source_tree import CPP_SUFFIXES, ROOT, Violation, files, read_text

MAX_FILE_LINES = 800
MAX_FUNCTION_LINES = 100  # the aim is 40
SOURCE_SUFFIXES = CPP_SUFFIXES | {
    ".py", ".sh", ".proto", ".cmake", ".txt", ".md", ".html", ".css", ".js", ".ts", ".yaml", ".yml"
}  # fmt: skip
NOT_A_FUNCTION = re.compile(r"^(namespace|struct|class|enum|union|extern|typedef|using|template)\b|^[#}/ ]|=\s*\{$")


def is_source(path):
    return path.suffix in SOURCE_SUFFIXES or path.name in {"dev", "run", "Dockerfile"}


def _cpp_functions(lines):
    """Yields (first line number, length) of the functions at namespace level. Relies on the project's formatting: such
    a function starts in the first column and ends with a brace in the first column."""
    start = None
    for number, line in enumerate(lines, start=1):
        if line == "}":
            if start is not None:
                yield start, number - start + 1
            start = None
        elif start is None and line.endswith("{") and not NOT_A_FUNCTION.match(line):
            start = number
        elif line.startswith("}"):
            start = None


def _python_functions(lines):
    for node in ast.walk(ast.parse("\n".join(lines))):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node.lineno, node.end_lineno - node.lineno + 1


def check_file(path, lines):
    violations = []
    if len(lines) > MAX_FILE_LINES:
        violations.append(Violation(str(path), 0, f"{len(lines)} lines, at most {MAX_FILE_LINES}: split it"))
    functions = ()
    if path.suffix in CPP_SUFFIXES:
        functions = _cpp_functions(lines)
    elif path.suffix == ".py":
        try:
            functions = list(_python_functions(lines))
        except SyntaxError as error:
            violations.append(Violation(str(path), error.lineno or 0, f"not Python: {error.msg}"))
    for number, length in functions:
        if length > MAX_FUNCTION_LINES:
            message = f"a function of {length} lines, at most {MAX_FUNCTION_LINES}: split it"
            violations.append(Violation(str(path), number, message))
    return violations


def check(root=ROOT):
    return [
        violation
        for path in files(root)
        if is_source(path)
        for violation in check_file(path, read_text(path, root) or [])
    ]
