"""The doctor: checks whether this machine can run the series, and says what to do if not."""
