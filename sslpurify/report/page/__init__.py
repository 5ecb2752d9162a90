"""A run's page: one self-contained HTML file, made of its record and its pictures alone."""

from sslpurify.report.page.document import PICTURES, draw, pictures_of, to_html
from sslpurify.report.page.wording import slug

__all__ = ["PICTURES", "draw", "pictures_of", "slug", "to_html"]
