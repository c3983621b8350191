"""The report page of a run, and the explanation of one star."""
