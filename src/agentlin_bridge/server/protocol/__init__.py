"""What clients may say to the embedded server and what it answers: requests read, results recognised, refusals."""
