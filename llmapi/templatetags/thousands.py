from django import template

from analytics.formatting import format_value

register = template.Library()
# A number with thousands separators. An unknown one is a dash, never 0.
register.filter("figure", format_value)
