from django import template

register = template.Library()


@register.filter
def figure(number: int | None) -> str:
    """Format a number with thousands separators. An unknown number is a dash, never 0."""
    return "–" if number is None else f"{number:,}"
