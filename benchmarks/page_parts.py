"""The parts of a page that a script writes between two marks, and how they show amounts."""

from __future__ import annotations


def read_part(page: str, begin: str, end: str) -> str:
    """Read what stands between two marks.

    Args:
        page: text of the page.
        begin: mark before the part.
        end: mark after it.

    Returns:
        The part, without empty lines around it; ``""`` if the page has no such marks.
    """
    return page.partition(begin)[2].partition(end)[0].strip()


def replace_part(page: str, begin: str, part: str, end: str) -> str:
    """Replace what stands between two marks.

    Args:
        page: present text of the page.
        begin: mark before the part.
        part: its new text.
        end: mark after it.

    Returns:
        The page with the new part.
    """
    head, _, rest = page.partition(begin)
    _, _, tail = rest.partition(end)
    return f"{head}{begin}\n\n{part}\n\n{end}{tail}"


def show_amount(amount: float, limit: float | None = None) -> str:
    """Show an amount with two or three digits that count, in bold if it is beyond its limit.

    Args:
        amount: 0 or more.
        limit: largest amount that is allowed; None if there is none.

    Returns:
        Markdown.
    """
    digits = 2 if amount < 1 else 1 if amount < 100 else 0
    shown = "0.00" if amount < 0.005 else f"{amount:,.{digits}f}"
    return f"**{shown}**" if limit is not None and amount > limit else shown
