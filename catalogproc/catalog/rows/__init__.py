"""From spectra to rows: screened, answered, flagged; pure, no files."""
