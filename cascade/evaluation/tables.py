"""Tables of a report, in Markdown and HTML."""

import html


def markdown(rows: list[list[str]]) -> str:
    """Rows, the first of which is the head, in Markdown.

    >>> markdown([["a", "b"], ["1", "2"]])
    '| a | b |\\n|---|---|\\n| 1 | 2 |\\n'
    """
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]) + "\n"


def html_table(rows: list[list[str]]) -> str:
    """The same in HTML."""
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in rows[0])
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows[1:])
    return f"<table><tr>{head}</tr>{body}</table>"


def number(value: object) -> str:
    """A figure as it is shown, a dash for none."""
    return "–" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
