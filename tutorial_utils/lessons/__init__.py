"""What only the lessons use. The rest of the package never imports it."""
