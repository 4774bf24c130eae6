"""What the embedded server keeps: its tables, and what is written and read there in one transaction."""
