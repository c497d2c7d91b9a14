"""The doctor: will this machine run the series, and if not, what to do?"""
