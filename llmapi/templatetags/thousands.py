from django import template

register = template.Library()


@register.filter
def figure(number: int | None) -> str:
    """With its thousands apart; what is not known is a dash, never a 0."""
    return "–" if number is None else f"{number:,}"
