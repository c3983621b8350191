"""What people look at: the page of a run, the page of a star."""
