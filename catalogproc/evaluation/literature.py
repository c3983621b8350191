"""Published scatters, for comparison."""

from __future__ import annotations

LB24, ZHANG26 = "Leung & Bovy 2024", "Zhang, Bu et al. 2026"

PUBLISHED: dict[tuple[str, str], tuple[str, float]] = {
    ("a", "teff"): (LB24, 50.73),
    ("a", "logg"): (LB24, 0.13),
    ("a", "m_h"): (LB24, 0.08),
    ("b", "teff"): (LB24, 47.17),
    ("b", "logg"): (LB24, 0.11),
    ("b", "m_h"): (LB24, 0.07),
    ("b", "mass"): (ZHANG26, 0.114),
    ("b", "age"): (ZHANG26, 1.334),
    ("b", "ebv"): (LB24, 0.04),
    ("b", "dist"): (LB24, 13.4),
    ("c", "teff"): (LB24, 63.21),
    ("c", "logg"): (LB24, 0.15),
    ("c", "m_h"): (LB24, 0.11),
    ("d", "teff"): (LB24, 52.28),
    ("d", "logg"): (LB24, 0.13),
    ("d", "m_h"): (LB24, 0.09),
    ("e", "teff"): (LB24, 224.0),
    ("e", "logg"): (LB24, 0.47),
    ("e", "m_h"): (LB24, 0.19),
    ("f", "teff"): (LB24, 0.90),
    ("f", "logg"): (LB24, 0.0),
    ("f", "m_h"): (LB24, 0.0),
}
"""Source and scatter by panel and quantity: real stars with APOGEE labels, brighter than ours."""

SEISMIC_FLOOR = {"mass": 0.038, "age": 0.11}
"""Relative errors of masses and ages in APOKASC-3 (Pinsonneault et al. 2025)."""

RP0 = ((7.45e-3, 5.05e-3, LB24), (1.80e-3, 1.42e-3, LB24), (1.97e-4, 2.56e-4, LB24))
"""Scatter of RP0 over the G flux from labels, with J-H and J-K, and with BP-RP too: published
model, published XGBoost (which was fitted to the test stars), source."""
