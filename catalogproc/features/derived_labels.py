"""Labels that are asked for by name: tokens, and quantities that are computed from a token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from catalogproc.errors import JobError, did_you_mean
from catalogproc.features.table_columns import shown
from catalogproc.vocabulary import Vocabulary


@dataclass(frozen=True)
class DerivedLabel:
    """A label that is computed from a token: its name, the token, and its unit and meaning."""

    name: str
    token: str
    unit: str
    meaning: str


DERIVED = {
    item.name: item
    for item in (
        DerivedLabel("age", "log_age", "Gyr", "age"),
        DerivedLabel("ebv", "logebv", "mag", "E(B-V) on the SFD scale"),
        DerivedLabel("dist", "g_fakemag", "kpc", "distance"),
    )
}


def known_labels(labels: Sequence[str], vocabulary: Vocabulary, where: str) -> tuple[str, ...]:
    """Return labels as they are declared, each once; they are named in any case.

    Parameters
    ----------
    labels
        Names of tokens and of derived labels.
    vocabulary
        The model's tokens.
    where
        Where they are named, for messages.

    Raises
    ------
    JobError
        A label that the model does not have; no label.
    """
    declared = {name.lower(): name for name in (*vocabulary.names, *DERIVED)}
    wanted = tuple(dict.fromkeys(label.strip() for label in labels if label.strip()))
    unknown = [label for label in wanted if label.lower() not in declared]
    if unknown or not wanted:
        raise JobError(
            "labels that the model does not have" if unknown else "no label is requested",
            wanted=f"{vocabulary.summary()}, {', '.join(DERIVED)}",
            found=shown(unknown) or "none",
            where=where,
            advice=did_you_mean(unknown[0], declared.values()) if unknown else None,
        )
    return tuple(dict.fromkeys(declared[label.lower()] for label in wanted))


def near_labels(
    ignored: Sequence[str], used: Sequence[str], vocabulary: Vocabulary
) -> dict[str, str]:
    """Return by column that is not used: advice on the label that it may be meant as.

    Parameters
    ----------
    ignored, used
        Columns of a table that are not read, and those that are.
    vocabulary
        The model's tokens.
    """
    taken = {name.lower() for name in used}
    words = [*vocabulary.named("colour"), *vocabulary.named("label"), *DERIVED]
    free = [word for word in words if word not in taken]
    near = ((name, did_you_mean(name, free)) for name in ignored)
    return {name: advice for name, advice in near if advice is not None}


def token_of(label: str) -> str:
    """Return the token that a label is computed from.

    Parameters
    ----------
    label
        A declared name.
    """
    return DERIVED[label].token if label in DERIVED else label


def described(word: str, vocabulary: Vocabulary) -> tuple[str, str]:
    """Return unit and meaning of a token or a derived label.

    Parameters
    ----------
    word, vocabulary
        A declared name, and the model's tokens.
    """
    item: Any = DERIVED[word] if word in DERIVED else vocabulary.tokens[vocabulary.column(word)]
    return item.unit, item.meaning if word in DERIVED else item.description
