"""Which columns of a table hold the arrays of XP spectra.

Column names are matched without regard to case. Arrays stand in one column, as lists or
written out as text, or in one column an element:

=====================================  ======================================================
array                                  spellings, for the element k of BP (RP likewise)
=====================================  ======================================================
bp_coefficients                        bp_coefficients_k, bp_coefficient_k, bp_coeffs_k,
                                       bp_coeff_k, bp_coef_k, bp_k, bpk
bp_coefficient_errors                  bp_coefficient_errors_k, bp_coeff_error_k,
                                       bp_coeff_err_k, bp_coef_err_k, bp_error_k,
                                       bp_err_k, e_bp_coeff_k, e_bp_coef_k, e_bp_k
bp_coefficient_correlations            bp_coefficient_correlations_k,
                                       bp_coefficient_correlation_k, bp_correlations_k
=====================================  ======================================================

where k may also stand as ``[k]`` or ``(k)``, with leading zeros, counted from 0 or from 1.
"""

from __future__ import annotations

from catalogproc.contract import Column
from catalogproc.readers.column_lookup import Named, find_column, numbered

_COEFFICIENT = "(?:coefficients?|coeffs?|coefs?)"
_ELEMENTS = {
    "coefficients": f"{{b}}(?:_{_COEFFICIENT})?_?",
    "coefficient_errors": (
        f"(?:{{b}}_(?:{_COEFFICIENT}_)?(?:errors?|err)|e_{{b}}(?:_{_COEFFICIENT})?)_?"
    ),
    "coefficient_correlations": "{b}_(?:coefficient_)?correlations?_?",
}


def array_columns(table: Named, column: Column, called: str | None = None) -> tuple[str, ...]:
    """Return the columns of a table that hold one of the contract xp_continuous.

    Parameters
    ----------
    table
        The table.
    column
        The column of the contract.
    called
        What the release calls it: this name comes before all others.

    Returns
    -------
    tuple of str
        One column, or one for each element of an array, in order; () for none.

    Raises
    ------
    InputError
        Two columns differ in case alone; an element is missing, or has two columns.
    """
    held = find_column(table, column, called)
    if held is not None:
        return (held,)
    band, _, word = column.name.partition("_")
    pattern = _ELEMENTS.get(word)
    return () if pattern is None else numbered(table, column.name, pattern.format(b=band))
