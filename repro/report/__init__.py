"""What people see: the terminal during a run, and what is made of records."""
