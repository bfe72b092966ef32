"""Sets, runs, tables and journals written anew without some of their crops."""
