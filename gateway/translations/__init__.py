"""The console's words in the reader's language: catalogues (`xx.po`) of Babel, compiled in memory when first asked for.

English is in the templates themselves; what a catalogue does not have is shown in English.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from gettext import GNUTranslations, NullTranslations
from importlib.resources import files
from io import BytesIO

from babel import Locale
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po

ENGLISH = "en"
_SUFFIX = ".po"


def say(text: str) -> str:
    """Mark a text of the code for the catalogues; a template translates it where it is shown."""
    return text


@cache
def languages() -> tuple[str, ...]:
    """The languages that there are, English first."""
    names = (file.name for file in files("gateway.translations").iterdir())
    return (ENGLISH, *sorted(name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX)))


@cache
def translations(language: str) -> NullTranslations:
    """The catalogue of a language; of English, and of one that there is not, an empty one."""
    if language not in languages()[1:]:
        return NullTranslations()
    source = files("gateway.translations") / f"{language}{_SUFFIX}"
    compiled = BytesIO()
    write_mo(compiled, read_po(BytesIO(source.read_bytes()), locale=language))
    compiled.seek(0)
    return GNUTranslations(compiled)


@cache
def locale_of(language: str) -> Locale:
    """How a language writes numbers and dates; English as in Europe, where the day stands before the month."""
    return Locale.parse("en_GB" if language == ENGLISH else language)


def catalogue(language: str) -> Mapping[str, Sequence[str]]:
    """What a catalogue says for each English text, all plural forms of it; nothing where it is not translated."""
    source = files("gateway.translations") / f"{language}{_SUFFIX}"
    messages = read_po(BytesIO(source.read_bytes()), locale=language)
    found: dict[str, Sequence[str]] = {}
    for message in messages:
        key = message.id if isinstance(message.id, str) else message.id[0]
        said = message.string or ""
        if key and not message.fuzzy:
            found[key] = [said] if isinstance(said, str) else list(said)
    return found
