"""What is watched while a run goes on, and what is kept from going wrong."""
