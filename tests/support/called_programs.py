"""Which programs the project's files call, by name: shell scripts, recipes of make, blocks of documents, and Python.

A reader of shells that knows as much as these files need: words, operators, keywords, `$(...)`, and `sh -c '...'`.
"""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator

_NAME = re.compile(r"[0-9]*[a-z][A-Za-z0-9_.+-]*")
_OF_THE_SYSTEM = re.compile(r"/(?:usr/)?s?bin/")
_ASSIGNMENT = re.compile(r"\w+(?:\[[^]]*\])?\+?=")
_HERE_DOCUMENT = re.compile(r"<<-?\s*(['\"]?)(\w+)\1(.*?)\n.*?^\t*\2$", re.DOTALL | re.MULTILINE)
_BEFORE_A_COMMAND = {"if", "then", "elif", "else", "while", "until", "do", "!", "{", "exec", "env", "command", "time"}
_WITHOUT_A_COMMAND = {"fi", "done", "esac", "}", "for", "case", "function", "export", "local", "readonly", "declare"}
_BUILTIN = {
    "[", "alias", "break", "cd", "compgen", "continue", "echo", "eval", "exit", "false", "kill", "mapfile",
    "printf", "pwd", "read", "return", "set", "shift", "shopt", "source", "test", "trap", "true", "type", "ulimit",
    "umask", "unset", "wait",
}  # fmt: skip
_STARTERS = {"run", "_run", "Popen", "call", "check_call", "check_output", "which", "create_subprocess_exec", "execvp"}


def of_shell(text: str) -> set[str]:
    """Return the programs that a script calls; its own functions are none."""
    text = _HERE_DOCUMENT.sub(r" \3", text)
    text = re.sub(r"(^|\s)#.*$", r"\1", text, flags=re.MULTILINE).replace("\\\n", " ")
    text = re.sub(r"\$\(\([^()]*\)\)|\$\{[^{}$()]*\}", "_", text)
    found: set[str] = set()
    while inner := re.search(r"\$\(([^()]*)\)|[<>]\(([^()]*)\)", text):
        found |= of_shell(inner[1] or inner[2] or "")
        text = text[: inner.start()] + "_" + text[inner.end() :]
    text = re.sub(r"\$\{[^{}]*\}", "_", text)
    functions = set(re.findall(r"^\s*(\w+)\(\)", text, re.MULTILINE))
    return {name for name in found | _of_words(text) if name not in functions}


def of_script(text: str) -> set[str]:
    """Return the programs of a file of its own, which has arrays that begin with one, and names some by their paths."""
    lists = {name for name in re.findall(r"\"\$\{(\w+)\[@\]\}\"", text) if not re.search(rf"{name}\+=\(", text)}
    begins = {first for name in lists for first in re.findall(rf"\b{name}=\(([\w.-]+)", text)}
    return of_shell(text) | begins | set(re.findall(r"(?<![\w.$}])/(?:usr/)?s?bin/([\w.-]+)", text)) - {"env"}


def _of_words(text: str) -> set[str]:
    lexer = shlex.shlex(text, posix=True, punctuation_chars=";<>|&()\n")
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = " \t", True, ""
    words = list(lexer)
    found: set[str] = set()
    expected = True
    skipped_to: str | None = None
    for number, word in enumerate(words):
        before = words[number - 1] if number else ""
        if skipped_to is not None:
            skipped_to = None if skipped_to in word else skipped_to
        elif set(word) <= set(";<>|&()\n"):
            # After a redirection comes a file.
            expected = expected if set(word) & set("<>") else True
            skipped_to = ")" if word[0] == "(" and _ASSIGNMENT.fullmatch(before) else None
        elif word == "[[":
            skipped_to = "]]"
        elif expected and not set(before) & set("<>"):
            expected = word in _BEFORE_A_COMMAND or _ASSIGNMENT.match(word) is not None
            found |= _of_command(words[number : number + 3]) if not expected else set()
    return found


def _of_command(words: list[str]) -> set[str]:
    """Return the program of a command, and those of the script that it is given."""
    name = words[0]
    if name in _WITHOUT_A_COMMAND or name in _BUILTIN or words[1:2] == ["()"]:
        return set()
    within = of_script(words[2]) if name in {"sh", "bash"} and words[1:2] == ["-c"] and len(words) > 2 else set()
    return within | _named(name)


def _named(name: str) -> set[str]:
    """Return the name as a set, or none: what has a path is a file of the project, but in the system's directories."""
    name = _OF_THE_SYSTEM.sub("", name) if _OF_THE_SYSTEM.match(name) else name
    return {name} if _NAME.fullmatch(name) else set()


def of_makefile(text: str) -> set[str]:
    """Return the programs that the recipes call."""
    recipes = "\n".join(re.sub(r"^[@+-]+", "", line) for line in re.findall(r"^\t(.*)$", text, re.MULTILINE))
    recipes = recipes.replace("$(BIN)", ".venv/bin").replace("$(PYTHON)", "python3")
    of_make = re.compile(r"(?<!\$)\$\([^()]*\)")
    while of_make.search(recipes):
        recipes = of_make.sub("", recipes)
    return of_shell(recipes.replace("$$", "$"))


def of_document(text: str) -> set[str]:
    """Return the programs in the blocks of commands."""
    return of_shell("\n".join(re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE)))


def of_python(text: str) -> set[str]:
    """Return the programs that a module starts or looks for, as far as their names stand in it."""
    tree = ast.parse(text)
    return {name for node in ast.walk(tree) for name in _of_node(node)}


def _of_node(node: ast.AST) -> Iterator[str]:
    """Yield what a call starts, and what lists begin with that are given names as commands are, or returned so."""
    if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in _STARTERS and node.args:
        yield from _first_word(node.args[0], alone=not ast.unparse(node.func).startswith("subprocess"))
    elif isinstance(node, ast.Assign):
        words = _first_word(node.value)
        yield from words if "command" in ast.unparse(node.targets[0]) or _has_path(node.value) else ()
    elif isinstance(node, ast.FunctionDef):
        for child in ast.walk(node):
            if isinstance(child, ast.Return) and isinstance(child.value, ast.List) and "ommand" in node.name:
                yield from _first_word(child.value)


def _has_path(node: ast.AST) -> bool:
    """Tell whether a list begins with a program of the system's directories."""
    first = node.elts[0] if isinstance(node, ast.List) and node.elts else None
    return isinstance(first, ast.Constant) and _OF_THE_SYSTEM.match(str(first.value)) is not None


def _first_word(node: ast.AST, *, alone: bool = False) -> set[str]:
    """Return the first of a list of words, or, where a program may stand alone, the word."""
    if isinstance(node, ast.List) and node.elts:
        words = [part.value if isinstance(part, ast.Constant) else "" for part in node.elts[:3]]
        return _of_command([str(word) for word in words])
    return _named(node.value) if alone and isinstance(node, ast.Constant) and isinstance(node.value, str) else set()
