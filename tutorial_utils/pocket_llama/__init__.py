"""The shipped model: its weights, its tokenizer, and the world that it was trained on."""
